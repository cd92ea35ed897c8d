"""What our step, loop and evaluator do in the cases of benchmarks/hazards.py."""

import os
import pathlib
import signal
import tempfile

import keras
import numpy as np

from benchmarks import hazards_cases as cases
from data import pipeline
from data.source import Tensors
from errors import Stopped, UserError
from experiment import parts
from models.batch_norm import BatchNormalization
from models.dropout import Dropout
from settings import Options, Training
from strategies import selection
from tasks.regression import Regression
from training import randomness
from training.checkpoint import Checkpoints
from training.evaluation import EvaluationStep, Evaluator
from training.loop import StepRunner
from training.state import TrainState, inference_arrays
from training.trainer import Trainer

SIGNAL_AT = 10       # of the steps of DIABETES. The run stops soon after, and within an epoch: one has 9.7 steps


class Rows(Regression):
    """A Case as it is: its rows are ready, with a weight each."""

    def __init__(self):
        pass

    def batch(self, rows, draws, training=False):
        return rows['x'], rows['y'], rows['weight']


TASK = Rows()


def measure():
    """Returns ({row: values}, the weights of one process that the workers should reach, as a flat list)."""
    devices = {'one': selection.select('cpu'), 'two': selection.select('cpu', virtual_devices=2)}
    randomness.make_deterministic()
    rows = {'clipping': _clipping, 'dropout': _dropout, 'accumulation': _accumulation, 'overflow': _overflow,
            'partial': _partial, 'batch_norm': _batch_norm, 'xla': _xla, 'resume': _resume}
    return {name: row(devices) for name, row in rows.items()}, _flat(_train_net(devices['one']))


def measure_worker(devices):
    """In one of the processes that TF_CONFIG names. Returns the weights after training, as a flat list."""
    randomness.make_deterministic()
    return _flat(_train_net(devices))


def _flat(weights):
    return [float(number) for w in weights for number in w.ravel()]


def _loop(training, devices, task, build, dataset_fn, jit='off'):
    """Trains for training.steps. Returns (Trainer, {name: value} of the training totals)."""
    trainer = Trainer(training, devices, task, build, total_steps=training.steps, workdir='unused', jit=jit)
    call = StepRunner(devices.strategy, trainer.train_step, dataset_fn, 0)(training.steps)
    return trainer, task.results(call.totals)


def _slices(case):
    weights = np.ones_like(case.y) if case.weights is None else case.weights
    source = Tensors(x=case.x, y=case.y, weight=weights)
    return (pipeline.evaluation_slices(source, TASK.batch, batch_size=case.batch_size),
            pipeline.evaluation_steps(source, case.batch_size), source)


def _train(case, devices, **overrides):
    """Trains on a Case: in order, as `fit(shuffle=False)`; the last batch is padded with rows of weight 0."""
    in_order, steps, _ = _slices(case)
    training = Training(batch_size=case.batch_size, steps=steps * case.epochs, optimizer='sgd',
                        learning_rate=case.learning_rate, **overrides)
    return _loop(training, devices, TASK, case.build, lambda _: lambda context: in_order(context).repeat().map(
        lambda x, y, weights, real: (x, y, weights)))


def _loss(case, devices, model):
    return Evaluator(devices.strategy, EvaluationStep(model, TASK), *_slices(case))()['loss']


def _w(trainer):
    """The first weight of the layer named w, on each replica."""
    return [float(copy.ravel()[0]) for copy in cases.copies(trainer.model.get_layer('w').kernel)]


def _clipping(devices):
    return {name: _w(_train(cases.clipping(), d, clip_norm=1.)[0])[0] for name, d in devices.items()}


def _dropout(devices):
    masks = {name: cases.masks(_train(cases.dropout(Dropout), d)[0].model.get_layer('w').kernel)
             for name, d in devices.items()}
    return {**{name: int(np.sum(first == second)) for name, (first, second) in masks.items()},
            'as_one': int(np.sum(masks['one'] == masks['two'])), 'elements': masks['one'].size}


def _overflow(devices):
    measured = {}
    for name, row, d in cases.OVERFLOWS:
        trainer, totals = _train(cases.overflow(row), devices[d], precision='float16')
        measured |= {name: cases.as_text(_w(trainer)), f'skipped_{name}': totals['skipped']}
    return measured


def _partial(devices):
    measured = {}
    for name, d in devices.items():
        measured[name] = _w(_train(cases.partial_batch(), d)[0])[0]
        with d.strategy.scope():
            model = cases.padded_batch().build()
        measured[f'loss_{name}'] = _loss(cases.padded_batch(), d, model)
    return measured


def _batch_norm(devices):
    measured = {}
    for name, d in devices.items():
        case = cases.batch_norm(BatchNormalization)
        trainer, _ = _train(case, d)
        with tempfile.TemporaryDirectory() as folder:
            checkpoints = Checkpoints(folder)
            checkpoints.save(1, trainer.state.arrays(), {})
            checkpoints.wait()
            arrays, _ = checkpoints.newest()
        loaded = case.build()
        TrainState(loaded).restore(inference_arrays(arrays))
        means = [float(copy[0]) for copy in cases.copies(trainer.model.get_layer('norm').moving_mean)]
        measured |= {f'means_{name}': means, f'trained_{name}': _loss(case, d, trainer.model),
                     f'loaded_{name}': _loss(case, devices['one'], loaded)}
    try:
        _train(cases.batch_norm(keras.layers.BatchNormalization), devices['two'])
    except UserError as error:
        return {**measured, 'refused': str(error).split(' Received')[0]}
    return {**measured, 'refused': 'not refused'}


def _train_net(devices, jit='off', **overrides):
    """The weights after training on the diabetes set."""
    recipe = cases.DIABETES.replace(**overrides)
    dataset, task = parts.open_data(recipe)
    batches = parts.Batches(recipe, dataset, task, devices.replicas)
    trainer, _ = _loop(recipe.training, devices, task, lambda: cases.net(Dropout), batches.training, jit)
    return trainer.model.get_weights()


def _differences(devices, changed):
    """From the plain step on one device. changed: function (devices) -> weights."""
    plain = _train_net(devices['one'])
    differences = {name: cases.max_difference(plain, changed(d)) for name, d in devices.items()}
    return {**differences, 'steps': cases.DIABETES.training.steps}


def _accumulation(devices):
    return _differences(devices, lambda d: _train_net(d, accumulate=4))


def _xla(devices):
    return _differences(devices, lambda d: _train_net(d, jit='on'))


def _resume(devices):
    measured = {}
    for name, d in devices.items():
        with tempfile.TemporaryDirectory() as folder:
            whole = _run(d, pathlib.Path(folder) / 'whole')
            stopped = _run(d, pathlib.Path(folder) / 'stopped', signal_at=SIGNAL_AT)
            resumed = _run(d, pathlib.Path(folder) / 'stopped')
        arrays = [list(trainer.state.arrays().values()) for trainer in (whole, resumed)]
        measured |= {name: cases.max_difference(*arrays), f'stopped_{name}': stopped.step,
                     f'same_bits_{name}': whole.state.sha256() == resumed.state.sha256()}
    return measured


def _run(devices, workdir, signal_at=None):
    """Trains DIABETES in a folder, from its checkpoint if it has one. signal_at: step of a SIGTERM to this process."""
    recipe = cases.DIABETES
    workdir.mkdir(exist_ok=True)
    dataset, task = parts.open_data(recipe)
    batches = parts.Batches(recipe, dataset, task, devices.replicas)
    training = recipe.training
    trainer = Trainer(training, devices, task, lambda: cases.net(Dropout), total_steps=training.steps, workdir=workdir)
    trainer.restore(dataset.fingerprint)
    evaluate = trainer.evaluator(*batches.evaluation('validation'))

    def validate():
        if trainer.step == signal_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate()

    try:
        trainer.train(batches.training, validate, batches.examples, Options(steps_per_call=1))
    except Stopped:
        pass
    return trainer
