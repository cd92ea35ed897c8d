"""The trainer: a run's state, and what happens to it between calls of the loop (log, evaluate, checkpoint, stop)."""

import json
import pathlib
import time

import keras
import numpy as np
import tensorflow as tf

from errors import RunError, Stopped, UserError
from training import randomness
from training.checkpoint import Checkpoints, decode, write_atomically
from training.evaluation import EvaluationStep, Evaluator
from training.faults import describe_step
from training.flops import count_flops
from training.interrupt import Interrupt, cause
from training.loop import NEVER, StepRunner, train
from training.micro_batches import pieces_of_a_replica, sum_dtype
from training.optimizer import make_optimizer, make_schedule, replica_local_variables
from training.runlog import RunLog
from training.state import TrainState
from training.step import LossScale, TrainStep

CHECKPOINT_SECONDS = 60.     # between checkpoints, when `checkpoint_every` does not say


class Trainer:
    """Holds the model under a strategy's scope, trains it and evaluates it.

    Args:
        recipe: how the result comes about. total_steps: its length in steps.
        devices: a strategies.selection.Devices.
        task: a tasks.Task.
        build: function () -> Keras model, called under the strategy's scope.
        workdir: folder for checkpoints and logs.
        jit: whether XLA compiles the step.
    """

    def __init__(self, recipe, devices, task, build, *, total_steps, workdir, jit=False):
        self.recipe, self.devices, self.task, self.total_steps = recipe, devices, task, total_steps
        self.workdir, self.jit = pathlib.Path(workdir), jit
        schedule = make_schedule(recipe, total_steps)
        with devices.strategy.scope(), replica_local_variables():
            self.model = randomness.install(build())
            self.optimizer = make_optimizer(
                recipe.optimizer, self.model.trainable_variables, schedule, momentum=recipe.momentum,
                nesterov=recipe.nesterov, beta_2=recipe.beta_2, epsilon=recipe.epsilon,
                weight_decay=recipe.weight_decay, ema=recipe.ema)
            loss_scale = LossScale() if recipe.precision == 'float16' else None
        _check_batch_norm(self.model, recipe, devices, jit)
        _check_max_pooling(self.model, jit)
        self.state = TrainState(self.model, self.optimizer, loss_scale)
        sums = sum_dtype(recipe.accumulate, devices.hardware)
        self.train_step = TrainStep(self.model, self.optimizer, task, batch_size=recipe.batch_size,
                                    replicas=devices.replicas, seed=recipe.seed, clip_norm=recipe.clip_norm,
                                    accumulate=recipe.accumulate, jit=jit, loss_scale=loss_scale, sum_dtype=sums)
        self.evaluation_step = EvaluationStep(self.model, task, sum_dtype=sums, pieces=pieces_of_a_replica(
            recipe.accumulate, devices.replicas))
        self.checkpoints = Checkpoints(self.workdir / 'checkpoints')
        self.step, self.best, self._interval = 0, None, {}
        self.banned = set()      # steps whose batches are left out
        self.train_seconds = self.compile_seconds = self.flops_per_step = 0.
        self._timed_steps, self._timed_seconds = 0, 0.

    @property
    def examples_per_second(self):
        """Throughput of this process, excluding the call that compiled."""
        return self._timed_steps * self.recipe.batch_size / self._timed_seconds if self._timed_seconds else 0.

    def restore(self, fingerprint):
        """Goes to the newest sound checkpoint, if there is one. Returns the step.

        Raises:
            RunError: it was trained on other data, whatever the dataset's name.
        """
        self._fingerprint = fingerprint
        # Only the chief reads the folder: the others may see an older state of it, or none.
        found = decode(self.devices.from_chief(self.checkpoints.newest_bytes() if self.devices.is_chief else b''))
        if found:
            arrays, metadata = found
            if metadata['data'] != fingerprint:
                raise RunError(f'the data of {self.recipe.dataset} is not what this run began with '
                               f'({metadata["data"]} then, {fingerprint} now)')
            self.state.restore(arrays)
            self.step, self.train_seconds = metadata['step'], metadata['train_seconds']
            self.best, self.banned = metadata['best'], set(metadata.get('banned', ()))
            self._interval = metadata.get('interval', {})
        return self.step

    def count_flops(self, batch):
        """Sets `flops_per_step`: all replicas' forward and backward passes. batch: the TensorSpecs of a replica's."""
        # Those that this process traces: a TPU's replicas are one program.
        replicas = 1 if self.devices.hardware == 'tpu' else self.devices.replicas // self.devices.workers

        @tf.function
        def everywhere(batch, step, first_row):
            per_replica = self.devices.strategy.run(self.train_step.forward_backward, args=(batch, step, first_row))
            return tf.nest.map_structure(self.devices.strategy.experimental_local_results, per_replica)
        scalar = tf.TensorSpec([], tf.int64)
        traced = everywhere.get_concrete_function(batch, scalar, scalar)
        self.flops_per_step = count_flops(traced) / replicas * self.devices.replicas

    def evaluator(self, dataset_fn, batches, source):
        """An Evaluator of this model; it uses the averaged weights if there are any."""
        evaluate = Evaluator(self.devices.strategy, self.evaluation_step, dataset_fn, batches, source)

        def averaged():
            with self.state.averaged():
                return evaluate()
        return averaged

    def train(self, dataset_fn, validate, examples, options):
        """Trains from `self.step` to the end.

        Args:
            dataset_fn: function (start_step) -> dataset function, see data/pipeline.py.
            validate: function () -> {name: value} on the validation split.
            examples: function (step) -> indices of that step's examples, for a report.
            options: recipes.Options, for what is due when.

        Raises:
            Stopped: SIGTERM, Ctrl-C or max_minutes; the state is saved.
            RunError: a checkpoint could not be written, or the numbers are not finite any more.
        """
        if self.step >= self.total_steps:
            return
        self._validate, self._examples, self._options = validate, examples, options
        self._saved_at, self._stopped_by, self._bad_run = time.monotonic(), None, 0
        self._log = RunLog(self.workdir, self.task, self.total_steps, self.recipe.batch_size, self.step,
                           self._interval, quiet=not self.devices.is_chief)
        due = (options.log_every, self.recipe.eval_every, options.checkpoint_every, self.recipe.average_every)
        try:
            with Interrupt(options.max_minutes) as interrupt:
                self._runner = StepRunner(self.devices.strategy, self.train_step, dataset_fn, self.step,
                                          interrupt.flags, self.banned)
                if options.on_nan == 'rollback' and not self.step:
                    self._save()
                train(self._runner, self.total_steps, due, self._on_call,
                      interrupt if self.devices.is_chief else None, options.steps_per_call)
                if self.step < self.total_steps:
                    self._save()
                self.checkpoints.wait()
        finally:
            self._log.close()
        if self.step < self.total_steps:
            raise Stopped(self._stopped_by, self.step)

    def _on_call(self, call, seconds, first):
        """After each call: whatever is due. Returns whether to continue."""
        self.step += call.steps
        self.train_seconds += seconds
        if first:
            self.compile_seconds = seconds
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
        if count := averaged_checkpoints(self.recipe, self.step, self.total_steps):
            self.state.add_to_mean(count)
        last = self.step == self.total_steps
        if last or self.step % self._options.log_every == 0:
            rate = float(tf.convert_to_tensor(self.optimizer.learning_rate))
            self._log.interval(self.step, rate, self.train_seconds)
        evaluated = last or (self.recipe.eval_every and self.step % self.recipe.eval_every == 0)
        improved = self._evaluate() if evaluated else False
        if last or improved or self._checkpoint_due():
            self._save(best=improved)
        self._stopped_by = cause(call.flags)
        return not self._stopped_by

    def _evaluate(self):
        """Evaluates on the validation split. Returns whether it is the best so far."""
        values = self._validate()
        self._log.evaluation(self.step, 'validation', values)
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
        return describe_step(self.devices.strategy, self.train_step, self._runner, self._examples, step)

    def _give_up(self, what, report):
        """Raises RunError, with a report in the run's folder."""
        self.checkpoints.wait()
        file = self.workdir / 'not_finite.json'
        if self.devices.is_chief:
            write_atomically(file, (json.dumps(report, indent=1) + '\n').encode())
        raise RunError(f'{what}; see {file}')


def averaged_checkpoints(recipe, step, total_steps):
    """Which of the checkpoints whose weights are averaged this step is: 1, 2, ...; or 0. arXiv:1706.03762, section 6.1.

    They are the last `average_last` multiples of `average_every` in the run.
    """
    if not recipe.average_last or step % recipe.average_every:
        return 0
    before_first = total_steps // recipe.average_every - recipe.average_last
    return max(0, step // recipe.average_every - max(0, before_first))


def _check_batch_norm(model, recipe, devices, jit):
    """BatchNorm couples the rows of a batch: refuses what would make its result depend on how the batch is spread."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            if not layer.synchronized:
                raise UserError('`model` must have synchronized=True in every BatchNormalization. '
                                f'Received: {layer.name}')
            if recipe.accumulate > 1:
                raise UserError(f'`accumulate` cannot equal one large batch with BatchNormalization ({layer.name}). '
                                f'Received: accumulate={recipe.accumulate}')
            if jit and devices.replicas > 1:
                raise UserError(f'`jit` must be off: XLA cannot hold the all-reduce of {layer.name} '
                                f'(BatchNormalization) on {devices.replicas} replicas. Received: jit on')


def _check_max_pooling(model, jit):
    for layer in model._flatten_layers():
        if jit and isinstance(layer, keras.layers.MaxPooling2D):
            raise UserError('`jit` must be off: XLA has no deterministic gradient of max-pooling '
                            f'({layer.name}), and a run promises equal bits after a resume. Received: jit on')
