"""The trainer: a run's state, and what happens to it between calls of the loop (log, evaluate, checkpoint, stop)."""

import contextlib
import json
import math
import pathlib
import time

import numpy as np
import tensorflow as tf

from errors import RunError, Stopped
from training import batch_norm, lookups, randomness
from training.checkpoint import Checkpoints, decode, name_of
from training.evaluation import EvaluationStep
from training.faults import describe_step
from training.files import write_atomically
from training.flops import count_flops
from training.interrupt import Interrupt, cause
from training.jit import use_jit
from training.loop import NEVER, train
from training.micro_batches import pieces_of_a_replica, sum_dtype
from training.optimizer import make_optimizer, make_schedule, replica_local_variables
from training.runlog import RunLog
from training.runtime import make_evaluator, make_runner, make_state
from training.step import LossScale, TrainStep

CHECKPOINT_SECONDS = 60.     # between checkpoints, when `checkpoint_every` does not say


class Trainer:
    """Holds the model under a strategy's scope, trains it and evaluates it.

    Args:
        training: settings.Training, without `auto`. total_steps: the run's length in steps.
        devices: a strategies.selection.Devices.
        task: a tasks.Task.
        build: function () -> Keras model, called under the strategy's scope.
        workdir: folder for checkpoints and logs.
        recipe: the recipe's JSON, which marks the checkpoints as its own.
        jit: auto, on or off, see jit.py; the attributes `jit` and `jit_reason` say what was decided.
        deterministic: what `randomness.make_deterministic` returned; the attribute is False also if any earlier step of
            a resumed run was not deterministic.
    """

    def __init__(self, training, devices, task, build, *, total_steps, workdir, jit='off', recipe='',
                 deterministic=True):
        self.training, self.devices, self.task, self.total_steps = training, devices, task, total_steps
        self.workdir = pathlib.Path(workdir)
        schedule = make_schedule(training, total_steps)
        with devices.strategy.scope(), replica_local_variables():
            self.model = randomness.install(build())
            self.optimizer = make_optimizer(
                training.optimizer, self.model.trainable_variables, schedule, momentum=training.momentum,
                nesterov=training.nesterov, beta_2=training.beta_2, epsilon=training.epsilon,
                weight_decay=training.weight_decay, ema=training.ema)
            loss_scale = LossScale() if training.precision == 'float16' else None
        self.jit, self.jit_reason = use_jit(jit, self.model, devices.kernels, devices.replicas, total_steps,
                                            deterministic)
        batch_norm.install(self.model, training.accumulate, devices.replicas,
                           one_kernel=devices.kernels == 'cpu' and not self.jit)
        if (self.jit or devices.runtime == 'pjrt') and deterministic and devices.hardware == 'gpu':
            lookups.install(self.model)
        self.deterministic = deterministic
        self.state = make_state(devices, self.model, self.optimizer, loss_scale)
        sums = sum_dtype(training.accumulate, devices.hardware)
        self.train_step = TrainStep(self.model, self.optimizer, task, batch_size=training.batch_size,
                                    replicas=devices.replicas, seed=training.seed, clip_norm=training.clip_norm,
                                    accumulate=training.accumulate, jit=self.jit, loss_scale=loss_scale, sum_dtype=sums)
        self.evaluation_step = EvaluationStep(self.model, task, sum_dtype=sums, pieces=pieces_of_a_replica(
            training.accumulate, devices.replicas))
        self.checkpoints = Checkpoints(self.workdir / 'checkpoints', recipe=recipe)
        self.step, self.best, self._interval = 0, None, {}
        self.resumed, self._weights = False, ''     # from a checkpoint; the hash of the weights that the run began with
        self.banned = set()      # steps whose batches are left out
        self._evaluation_due = False      # of this step: it was stopped, or not begun
        self._interrupt, self._interruptible = None, False
        self.train_seconds = self.compile_seconds = self.flops_per_step = 0.
        self.program_fingerprint = None      # of the step that runtime pjrt lowered, once it has
        self._timed_steps, self._timed_seconds = 0, 0.

    @property
    def examples_per_second(self):
        """Throughput of this process, excluding the call that compiled."""
        return self._timed_steps * self.training.batch_size / self._timed_seconds if self._timed_seconds else 0.

    def restore(self, fingerprint):
        """Goes to the newest sound checkpoint, if there is one. Returns the step.

        Raises:
            RunError: it was trained on other data, or by another recipe; or its variables are not this model's.
        """
        self._fingerprint = fingerprint
        # Only the chief reads the folder: the others may see an older state of it, or none.
        data = self.devices.from_chief(self.checkpoints.newest_bytes() if self.devices.is_chief else b'')
        if data:
            arrays, metadata = decode(data)
            if lacking := [key for key in ('data', 'train_seconds', 'best') if key not in metadata]:
                raise RunError(f'checkpoint {name_of(data)} lacks `{lacking[0]}` in its metadata: remove it')
            if metadata['data'] != fingerprint:
                raise RunError('the data is not what this run began with '
                               f'({metadata["data"]} then, {fingerprint} now)')
            self.state.restore(arrays, f'checkpoint {name_of(data)}')
            self.step, self.train_seconds = metadata['step'], metadata['train_seconds']
            self.best, self.banned = metadata['best'], set(metadata.get('banned', ()))
            self._interval = metadata.get('interval', {})
            self._evaluation_due = metadata.get('evaluation_due', False)
            self.deterministic &= metadata.get('deterministic', True)
            self.resumed, self._weights = True, metadata.get('weights', '')
        return self.step

    def start_from(self, weights, fingerprint):
        """Assigns {path: array} to variables of the model, before the first step. Checkpoints keep the fingerprint."""
        self.state.start_from(weights)
        self._weights = fingerprint

    def count_flops(self, batch):
        """Sets `flops_per_step`: all replicas' forward and backward passes. batch: the TensorSpecs of a replica's."""
        # Those that this process traces: a TPU's replicas are one program.
        replicas = 1 if self.devices.kernels == 'xla' else self.devices.replicas // self.devices.workers

        @tf.function
        def everywhere(batch, step, first_row):
            per_replica = self.devices.strategy.run(self.train_step.forward_backward, args=(batch, step, first_row))
            return tf.nest.map_structure(self.devices.strategy.experimental_local_results, per_replica)
        scalar = tf.TensorSpec([], tf.int64)
        traced = everywhere.get_concrete_function(batch, scalar, scalar)
        self.flops_per_step = count_flops(traced) / replicas * self.devices.replicas

    def runner(self, dataset_fn, *arguments):
        """The loop's steps on these devices. The arguments are those of a StepRunner from its `start_step` on."""
        return make_runner(self.devices, self.state, self.train_step, dataset_fn, *arguments)

    def evaluator(self, dataset_fn, batches, source):
        """An Evaluator of this model; it uses the averaged weights if there are any.

        It raises Stopped after SIGTERM, Ctrl-C or max_minutes, on all workers.
        """
        evaluate = make_evaluator(self.devices, self.state, self.evaluation_step, dataset_fn, batches, source)

        def averaged():
            with self._interrupts(), self.state.averaged():
                return evaluate(self._interrupt.flags)
        return averaged

    @contextlib.contextmanager
    def _interrupts(self):
        """While it is open, signals raise flags; it may be open already."""
        if self._interruptible:
            yield
            return
        self._interruptible, self._interrupt = True, self._interrupt or Interrupt()
        try:
            with self._interrupt:
                yield
        finally:
            self._interruptible = False

    def train(self, dataset_fn, validate, examples, options):
        """Trains from `self.step` to the end.

        Args:
            dataset_fn: function (start_step) -> dataset function, see data/pipeline.py.
            validate: function () -> {name: value} on the validation split.
            examples: function (step) -> indices of that step's examples, for a report.
            options: settings.Options, for what is due when.

        Raises:
            Stopped: SIGTERM, Ctrl-C or max_minutes; the state is saved.
            RunError: a checkpoint could not be written, or the numbers are not finite any more.
        """
        self._interrupt = Interrupt(options.max_minutes)
        if self.step >= self.total_steps and not self._evaluation_due:
            return
        self._validate, self._examples, self._options = validate, examples, options
        self._saved_at, self._stopped_by, self._bad_run = time.monotonic(), None, 0
        self._log = RunLog(self.workdir, self.task, self.total_steps, self.training.batch_size, self.step,
                           self._interval, quiet=not self.devices.is_chief, evaluation_due=self._evaluation_due)
        due = (options.log_every, self.training.eval_every, options.checkpoint_every, self.training.average_every)
        try:
            with self._interrupts():
                self._runner = self.runner(dataset_fn, self.step, self._interrupt.flags, self.banned)
                self.compile_seconds = self._runner.lowering_seconds
                self.train_seconds += self.compile_seconds
                if fingerprint := self._runner.fingerprint:
                    self.program_fingerprint = fingerprint
                    self._log.line(f'program   {fingerprint}, lowered in {self.compile_seconds:.1f} s')
                if options.on_nan == 'rollback' and not self.step:
                    self._save()
                if not self._evaluation_due or self._evaluate_and_save(evaluate=True, save=True):
                    train(self._runner, self.total_steps, due, self._on_call,
                          self._interrupt if self.devices.is_chief else None, options.steps_per_call)
                if self._stopped_by:
                    self._save()
                self.checkpoints.wait()
        finally:
            self._log.close()
        if self._stopped_by:
            raise Stopped(self._stopped_by, self.step)

    def _on_call(self, call, seconds, first):
        """After each call: whatever is due. Returns whether to continue."""
        self.step += call.steps
        self.train_seconds += seconds
        if first:
            self.compile_seconds += seconds
        else:
            self._timed_steps, self._timed_seconds = self._timed_steps + call.steps, self._timed_seconds + seconds
        if call.first_bad != NEVER and self._options.on_nan == 'rollback':
            self._roll_back(call.first_bad)
            return True
        self._bad_run = call.bad_run + (self._bad_run if call.bad_run == call.steps else 0)
        if self._bad_run >= self._options.nan_limit:
            self._give_up(f'the last {self._bad_run} steps up to step {self.step} had a gradient that is not finite',
                          self._describe(self.step - 1))
        self._log.add(call, seconds, first)
        if count := averaged_checkpoints(self.training, self.step, self.total_steps):
            self.state.add_to_mean(count)
        last = self.step == self.total_steps
        if last or self.step % self._options.log_every == 0:
            self.state.pull(self.optimizer.iterations)
            rate = float(tf.convert_to_tensor(self.optimizer.learning_rate))
            self._log.interval(self.step, rate, self.train_seconds)
        if last and not self._updates():      # it counts updates, also those before a resume
            self._give_up(f'none of the {self.total_steps} steps had a gradient that is finite, so nothing was learned',
                          self._describe(self.step - 1))
        evaluated = last or (self.training.eval_every and self.step % self.training.eval_every == 0)
        self._stopped_by = cause(call.flags)
        return self._evaluate_and_save(evaluated, save=last or self._checkpoint_due())

    def _updates(self):
        """How many updates the optimizer has made; equal on all replicas."""
        self.state.pull(self.optimizer.iterations)
        counter = self.optimizer.iterations.value
        return int(getattr(counter, 'values', (counter,))[0])

    def _evaluate_and_save(self, evaluate, save):
        """What is due after a step. Returns whether to continue.

        A stop leaves the evaluation to the next start: the checkpoint says that it is due.
        """
        self._evaluation_due, improved = evaluate, False
        if evaluate and not self._stopped_by:
            try:
                improved, self._evaluation_due = self._evaluate(), False
            except Stopped as stop:
                self._stopped_by = stop.cause
        if improved or (save and not self._stopped_by):      # a stop saves anyway
            self._save(best=improved)
        return not self._stopped_by

    def _evaluate(self):
        """Evaluates on the validation split. Returns whether it is the best so far."""
        values = self._validate()
        self._log.evaluation(self.step, 'validation', values)
        if self.step == self.total_steps and not math.isfinite(values['loss']):
            self._give_up(f'the validation loss at the last step, {self.step}, is not finite',
                          self._describe(self.step - 1))
        name, sign = self.task.best
        improved = self.best is None or sign * (values[name] - self.best['value']) > 0
        if improved:
            self.best = {'metric': name, 'value': values[name], 'step': self.step}
        return improved

    def _checkpoint_due(self):
        if self._options.checkpoint_every:
            return self.step % self._options.checkpoint_every == 0
        return time.monotonic() - self._saved_at > CHECKPOINT_SECONDS

    def _save(self, best=False):
        self._saved_at = time.monotonic()
        arrays = self.state.arrays()
        if broken := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
            # Without the gradients: the clock may have brought only this worker here.
            self._give_up(f'{broken[0]} is not finite, so no checkpoint of step {self.step} is written',
                          {'step': self.step, 'not_finite': broken})
        if self.devices.is_chief:
            metadata = {'data': self._fingerprint, 'train_seconds': self.train_seconds, 'best': self.best,
                        'banned': sorted(self.banned), 'interval': dict(self._log.sums)}
            metadata |= {'evaluation_due': True} if self._evaluation_due else {}
            metadata |= {'weights': self._weights} if self._weights else {}
            metadata |= {} if self.deterministic else {'deterministic': False}
            self.checkpoints.save(self.step, arrays, metadata, best=best)

    def _roll_back(self, bad):
        """Goes back to the newest checkpoint, to resume without the batch of step `bad`."""
        banned = self.banned | {bad}
        if all(bad - n in banned for n in range(self._options.nan_limit)):
            self._give_up(f'the last {self._options.nan_limit} batches up to step {bad} had a gradient that is not '
                          'finite', self._describe(bad))
        self.checkpoints.wait()
        self.restore(self._fingerprint)
        self.banned = banned
        self._runner.seek(self.step, self.banned)
        self._log.rewind(self.step, self._interval)
        self._log.line(f'warning: the gradient of step {bad} is not finite: back to step {self.step}, '
                       'to resume without that batch')

    def _describe(self, step):
        self.state.pull()
        return describe_step(self.train_step.model, self._runner, self._examples, step)

    def _give_up(self, what, report):
        """Raises RunError, with a report in the run's folder."""
        self.checkpoints.wait()
        file = self.workdir / 'not_finite.json'
        if self.devices.is_chief:
            write_atomically(file, (json.dumps(report, indent=1) + '\n').encode())
        raise RunError(f'{what}; see {file}')


def averaged_checkpoints(training, step, total_steps):
    """Which of the checkpoints whose weights are averaged this step is: 1, 2, ...; or 0. arXiv:1706.03762, section 6.1.

    They are the last `average_last` multiples of `average_every` in the run.
    """
    if not training.average_last or step % training.average_every:
        return 0
    before_first = total_steps // training.average_every - training.average_last
    return max(0, step // training.average_every - max(0, before_first))
