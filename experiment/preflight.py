"""A recipe's steps, compiled for a TPU that is not there: what they need, what they cost, what is slow about them.

The same recipe, dataset, model, optimizer and steps as in a run; only the strategy under them is the compiler's.
"""

import dataclasses
import gc
import importlib.metadata
import math

import keras
import tensorflow as tf

from errors import UserError
from experiment import parts, weights
from experiment.workdir import Workdir
from settings.training import BATCH_SIZE
from strategies import pjrt
from strategies.preflight import compiler, hlo, lint, roofline, search
from strategies.preflight.replicas import ProgramReplicas
from training.interrupt import FLAGS
from training.pjrt import lowering


class Preflight:
    """
    Args:
        data_dir: folder of datasets.
        say: function (line), called before what takes long.
    """

    def __init__(self, data_dir='', say=print):
        self._data_dir, self._say = data_dir, say

    def check(self, recipe, topology):
        """Compiles both steps of a recipe for a topologies.Topology.

        Returns:
            The report, {field: value}, as `preflight.py --json` prints it. Where the steps do not compile or fit,
            `compiles` is False and `reason` says why; if memory lacks, `largest_per_chip_batch` says what would fit.

        Raises:
            UserError: the batch does not divide, or an argument cannot work.
        """
        steps = _Steps(recipe, topology, self._data_dir)
        report = steps.report()
        try:
            self._say(f'compiling the training step for {topology.chips} x TPU {topology.chip.name}, '
                      f'{steps.per_chip_batch} examples each')
            training = steps.training()
            report |= _fit(training.memory, topology) | {'fingerprint': training.fingerprint} | steps.costs(training)
            self._say('compiling the evaluation step')
            report['evaluation'] = steps.evaluation()
        except compiler.DoesNotFit as refusal:
            report |= {'compiles': False, 'reason': str(refusal), 'memory_limit_bytes': refusal.limit,
                       'memory_bytes': {**steps.known_memory(), 'total': refusal.needed}}
            start = int(steps.per_chip_batch * refusal.limit / refusal.needed)      # not the one that was just tried
            report['largest_per_chip_batch'] = self._largest(recipe, topology, max(1, start))
        except compiler.CannotCompile as refusal:
            report |= {'compiles': False, 'reason': str(refusal)}
        return report

    def largest(self, recipe, topology):
        """The report of a recipe with the largest batch that fits, which it names: `largest_per_chip_batch`."""
        start = max(1, recipe.training.batch_size // topology.chips)
        batch = self._largest(recipe, topology, start)
        if not batch:
            raise UserError(f'`model` does not fit: on {topology.name} not even a batch of one example per chip does. '
                            f'Received: model={recipe.model.kind}')
        found = self.check(recipe.replace(batch_size=batch * topology.chips), topology)
        return {**found, 'largest_per_chip_batch': batch}

    def sweep(self, recipe, topologies, per_chip_batches):
        """Reports of the recipe on each topology, with each batch per chip; by default the recipe's global one."""
        return [self.check(recipe.replace(batch_size=batch * topology.chips) if batch else recipe, topology)
                for topology in topologies for batch in per_chip_batches or [0]]

    def _largest(self, recipe, topology, start):
        def try_batch(batch):
            self._say(f'trying {batch} examples per chip')
            try:
                steps = _Steps(recipe.replace(batch_size=batch * topology.chips), topology, self._data_dir)
                needed = steps.training().memory
            except compiler.DoesNotFit as refusal:
                return False, refusal.needed, refusal.limit
            finally:
                gc.collect()      # a model and its optimizer's slots, which hold each other
            limit = topology.chip.usable_hbm_bytes
            return needed <= limit, needed, limit

        # The global batch must divide into the recipe's micro-batches too.
        accumulate = recipe.training.accumulate
        unit = accumulate // math.gcd(accumulate, topology.chips)
        return search.largest_batch(try_batch, start, unit, BATCH_SIZE // topology.chips)


def _fit(needed, topology):
    limit = topology.chip.usable_hbm_bytes
    if needed > limit:
        raise compiler.DoesNotFit(needed, limit)
    return {'compiles': True, 'memory_limit_bytes': limit}


@dataclasses.dataclass(frozen=True)
class _Training:
    """The compiled launch of a training step. Memory in bytes per chip."""
    program: compiler.Program
    fingerprint: str        # of the step in it
    steps: int              # whose batches are sent together
    waiting: int            # the blocks of batches beside that of the launch that runs

    @property
    def memory(self):
        return self.program.memory + self.waiting


class _Steps:
    """A recipe's steps on a topology, ready to be compiled, as training/pjrt runs them."""

    def __init__(self, recipe, topology, data_dir):
        keras.backend.clear_session()      # or each further model's layers get other names
        recipe = weights.described(recipe, Workdir('unused'))
        mesh = compiler.open_topology(topology)
        self._topology = topology
        self._dataset, task = parts.open_data(recipe, data_dir, weights.tokenizer(recipe, Workdir('unused')))
        self._devices = pjrt.PjrtDevices('tpu', 'tpu', 'compiled ahead of time', ProgramReplicas(topology.chips),
                                         mesh=mesh, workers=topology.hosts)
        self._batches = parts.Batches(recipe, self._dataset, task, topology.chips)
        # Nothing is written to the folder.
        self.recipe = recipe.resolved('tpu')
        self._trainer, _ = parts.make_trainer(recipe, self._batches.rows, task, self._devices, Workdir('unused'))
        self._trainer.count_flops(self._batches.spec)
        self.per_chip_batch = recipe.training.batch_size // topology.chips

    def training(self):
        from training.pjrt import launch  # which imports jax, once it knows of no device
        from training.pjrt.program import made_of
        spec, mesh = self._batches.spec, self._devices.mesh
        lowered = lowering.training(self._devices.strategy, self._trainer.train_step, spec, FLAGS)
        steps = launch.block_length(spec, self._devices.local)
        launched = launch.Launch(made_of(lowered), mesh, steps)
        shapes = launched.shapes(spec, FLAGS)
        program = compiler.compile(launched.call, *shapes)
        _, _, block, *_ = shapes
        first = len(launched.changed) + len(launched.kept)
        waiting = (launch.BLOCKS - 1) * sum(program.argument_sizes[first:first + len(block)])
        return _Training(program, lowered.fingerprint, steps, waiting)

    def evaluation(self):
        """The part of the report on the evaluation step. Its time is left out: how long decoding takes is not known."""
        from training.pjrt import launch
        from training.pjrt.program import launch_once, made_of
        mesh, spec = self._devices.mesh, self._batches.evaluation_spec
        lowered, _ = lowering.evaluation(self._devices.strategy, self._trainer.evaluation_step, spec)
        evaluation = made_of(lowered)
        program = compiler.compile(launch_once(mesh, evaluation), launch.block_shapes(spec, 1, mesh), (),
                                   launch.state_shapes(evaluation.captured, mesh))
        # What it does not read lies there all the same: the optimizer's slots, and blocks of the training.
        known, read = self.known_memory(), sum(_bytes(v) for v in evaluation.captured)
        ahead = known['batches'] // launch.BLOCKS * launch.BLOCKS_AHEAD
        resident = known['weights'] + known['optimizer'] - read + ahead
        needed = program.memory + resident
        _fit(needed, self._topology)
        return {'compiles': True, 'memory_bytes': needed, 'compile_seconds': program.seconds}

    def report(self):
        """What is known before anything is compiled."""
        recipe, topology = self.recipe, self._topology
        return {'model': recipe.model.kind, 'size': getattr(recipe.model, 'size', ''), 'dataset': recipe.data.dataset,
                'precision': recipe.training.precision,
                'topology': topology.name, 'chip': topology.chip.name, 'chips': topology.chips,
                'per_chip_batch': self.per_chip_batch, 'global_batch_size': recipe.training.batch_size,
                'steps': self._trainer.total_steps, 'parameters': self._trainer.model.count_params(),
                'flops_per_step': self._trainer.flops_per_step,
                'versions': {name: importlib.metadata.version(name) for name in ('keras', 'jax', 'libtpu')}
                | {'tensorflow': tf.__version__}}

    def costs(self, training):
        """What the compiled training step needs and takes."""
        program = training.program
        costs = hlo.costs(program.text, training.steps)
        topology, flops = self._topology, self._trainer.flops_per_step
        predicted = roofline.predict(topology, flops=costs.flops, bytes=costs.bytes, model_flops=flops / topology.chips,
                                     all_reduce_bytes=costs.all_reduce_bytes)
        hours = predicted.step_seconds * self._trainer.total_steps / 3600
        names = [layer.name for layer in self._trainer.model._flatten_layers()]
        advice = lint.lint(program.text, topology.chip, names, training.steps) + lint.batch_advice(
            self._dataset.test.num_examples, self.recipe.training.batch_size)
        return {'memory_bytes': self._memory(training), 'compile_seconds': program.seconds,
                'steps_per_launch': training.steps,
                'compiled_flops_per_chip': costs.flops, 'bytes_per_step': costs.bytes,
                'all_reduces': costs.all_reduces, 'all_reduce_bytes': costs.all_reduce_bytes,
                'compute_seconds': predicted.compute_seconds, 'memory_seconds': predicted.memory_seconds,
                'interconnect_seconds': predicted.interconnect_seconds, 'bound': predicted.bound,
                'predicted_step_seconds': predicted.step_seconds, 'predicted_mfu': predicted.mfu,
                'predicted_examples_per_second': self.recipe.training.batch_size / predicted.step_seconds,
                'hours': hours, 'chip_hours': hours * topology.chips, 'assumptions': list(predicted.assumptions),
                'uncounted_loops': list(costs.unknown_loops), 'lint': [vars(a) for a in advice]}

    def _memory(self, training):
        """Bytes per chip, by what they hold."""
        known, program = self.known_memory(), training.program
        # What is left of the arguments is the padding of tiles, and the launch's few scalars.
        padding = program.arguments + training.waiting - sum(known.values())
        return {**known, 'padding': padding, 'activations': program.temporaries, 'outputs': program.outputs,
                'code': program.code, 'total': training.memory}

    def known_memory(self):
        """The part of the bytes per chip that needs no compiler."""
        from training.pjrt import launch
        model, optimizer, spec = self._trainer.model, self._trainer.optimizer, self._batches.spec
        weights, slots = (sum(map(_bytes, variables)) for variables in (model.weights, optimizer.variables))
        batches = launch.BLOCKS * launch.block_length(spec, self._devices.local) * launch.bytes_of(spec)
        return {'weights': weights, 'optimizer': slots, 'batches': batches}


def _bytes(variable):
    return math.prod(variable.shape) * tf.as_dtype(variable.dtype).size
