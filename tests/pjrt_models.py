"""Every model and task of the registry on PJRT devices, and by TensorFlow: python -m tests.pjrt_models OUT LAYOUT ...

    LAYOUT    N devices of this process; 2x2: 2 workers of 2 devices each; or tensorflow: one device, by that runtime;
              step:N: the small model of tests/distributed.py alone, for what models have in common

Writes OUT/LAYOUT.npz; of several workers OUT/LAYOUT.WORKER.npz. One process runs all of its layouts, since to import
TensorFlow and to trace takes longer than these runs.
"""

import dataclasses
import functools
import gc
import os
import pathlib
import sys

import jax
import keras
import numpy as np
import tensorflow as tf

import models
from data import pipeline
from data.source import Subset
from experiment import parts
from models.transformer import SIZES
from settings import Training
from strategies import cluster, selection
from strategies.preflight.replicas import ProgramReplicas
from strategies.workers import launch
from tests import distributed
from tests.models import examples
from tests.opened import task_of
from tests.tasks import cases
from training import randomness
from training.trainer import Trainer

B, STEPS = 16, 50
FEW = 2             # steps of the models over ResNets, whose convolutions XLA computes slowly on a CPU
TRAINING = {'batch_size': B, 'steps': STEPS, 'optimizer': 'adamw', 'learning_rate': 1e-3, 'weight_decay': 0.1,
            'clip_norm': 1., 'ema': 0.9, 'seed': 1}
TESTED = 11      # of 12 examples: the batch is padded
# The task, and data, of a model that takes sizes of this form, see tests/models/examples.py.
FORMS = {'images': ('classification', (cases.images, cases.image_files)),
         'boxes': ('detection', (cases.boxed, cases.boxed_files)),
         'pixels': ('segmentation', (cases.masked, cases.masked_files)),
         'tokens': ('classification', (cases.texts, cases.pieces)), 'hidden tokens': ('masked_lm', (cases.pieces,)),
         'spans': ('question_answering', (cases.questions,)), 'pairs': ('translation', (cases.pairs,))}
NARROW = {'resnet': {'width': 4}, 'airbench': {'width': 4}}
# Of batch norms, and of a BERT's biases that a softmax takes away, Adam makes steps out of rounding.
SGD = {'optimizer': 'sgd', 'learning_rate': 1e-2, 'momentum': 0.9}
SLOW_SGD = {**SGD, 'learning_rate': 1e-3}
VISION = ('centernet', 'unet', 'deeplab')
BY_SGD = {'resnet': SGD, 'bert': SGD, **dict.fromkeys(('airbench', *VISION), SLOW_SGD)}
# One layer more would double the time that XLA takes.
SMALL = {'num_layers': 1, 'd_model': 16, 'd_ff': 32, 'heads': 2}


def registered():
    """{name: (task, data set, fields of data, fields of the task, model, its options)}: cases.CASES, and every other
    model of the registry in every form it takes."""
    listed = {(model, form) for _, make, _, _, model, _ in cases.CASES.values()
              for form, (_, makers) in FORMS.items() if make in makers}
    others = {f'{form}, {model}': (FORMS[form][0], FORMS[form][1][0], {}, {}, model, NARROW.get(model, {}))
              for model, sizes in examples.CASES.values() for form in FORMS
              if sizes is examples.FORMS[form] and (model, form) not in listed}
    return {name: case for name, case in cases.CASES.items() if name not in cases.TWICE} | others


CASES = registered()
# Of these one layout is enough: the task and the model are those of another case, and micro-batches are tried too; or
# the model is a ResNet with more layers.
MORE = {'packed pairs': {'accumulate': 8}, 'images, lstm': {'accumulate': 8},
        **{name: {} for name, (*_, model, _) in CASES.items() if model in VISION}}
STEPS_ALONE = ('8 micro-batches', 'batch norm, a row that is not finite', 'float16, a row that is not finite')
AT_TWO = ('adamw, clip, decay, ema, dropout, regulariser, uneven weights', 'bfloat16')
HALVES = {}      # {case: arrays of the last layout by jax's runtime in the middle}: where TensorFlow goes on
opened = functools.cache(lambda make: make())      # one random data set for all layouts


def build(model, sizes, options):
    keras.utils.set_random_seed(0)
    dropout = {'dropout': 0.1} if 'dropout' in models.options_of(model) else {}
    return models.build(model, sizes, **{**dropout, **options})


def train(name, devices):
    """{case: {key: array}}: the state at the end, the totals on the way, the evaluation and the answers.

    A run that is resumed in the middle must end with the same bits. By TensorFlow, `CASE, moved` has the state of one
    that began by jax's runtime.
    """
    task_name, make, data, options, model, model_options = CASES[name]
    task, dataset = task_of(task_name, opened(make), options=options, **data), opened(make)
    rows = task.rows(dataset.train, training=True)
    steps = FEW if model in VISION else STEPS
    changed = {'steps': steps, **MORE.get(name, {}), **BY_SGD.get(model, {})}
    trainer = Trainer(Training(**{**TRAINING, **changed}), devices, task,
                      lambda: build(model, task.sizes, model_options), total_steps=steps, workdir='unused')
    runner = trainer.runner(lambda start: pipeline.training_slices(rows, task.batch, batch_size=B, seed=1,
                                                                   start_step=start), 0)
    calls, half = [runner(steps // 2)], trainer.state.arrays()
    calls.append(runner(steps - steps // 2))
    end = distributed.state(trainer)
    found = {**end, **evaluated(trainer, task, dataset.test),
             **{f'total/{key}': np.sum([call.totals[key] for call in calls], axis=0) for key in calls[0].totals}}
    resume(trainer, runner, half, steps)
    for key, value in distributed.state(trainer).items():
        np.testing.assert_array_equal(value, end[key], err_msg=f'{name}, resumed: {key}')
    if devices.runtime == 'pjrt':
        HALVES[name] = half
        return {name: found}
    resume(trainer, runner, HALVES[name], steps)
    return {name: found, f'{name}, moved': distributed.state(trainer)}


def resume(trainer, runner, half, steps):
    """Goes on to the end from the arrays of a checkpoint in the middle."""
    trainer.state.restore(half)
    runner.seek(steps // 2)
    runner(steps - steps // 2)


def evaluated(trainer, task, source):
    """The values of an evaluation, and the answers that they were computed from."""
    answers, compare = [], task.compare
    task.compare = lambda whole, of: answers.extend(tf.nest.flatten(whole)) or compare(whole, of)
    for tested in (Subset(source, range(3)), Subset(source, range(TESTED))):
        answers.clear()
        values = trainer.evaluator(*parts.evaluation_batches(task, tested, B))()
    assert trainer.devices.runtime == 'tensorflow' or len(trainer.state.evaluations) == 1      # they share a program
    return {**{f'value/{key}': np.array(value) for key, value in values.items() if not isinstance(value, str)},
            **{f'answer/{i}': answer for i, answer in enumerate(answers)}}


def run_all(layout, devices, step_alone=False):
    """{'case|key': array} of a layout."""
    found = {}
    for name in () if step_alone else CASES:
        if name not in MORE or layout in ('2', 'tensorflow'):
            found |= train(name, devices)
    for name in (*STEPS_ALONE, *AT_TWO):
        if name in STEPS_ALONE or layout in ('2', 'tensorflow'):
            found |= distributed.cases(devices, name)
    keras.config.set_dtype_policy('float32')
    jax.clear_caches()      # a compiled program holds its trainer
    gc.collect()
    return {f'{name}|{key}': value for name, values in found.items() for key, value in values.items()}


def part(devices, count):
    """The first of the devices."""
    mesh = jax.sharding.Mesh(devices.mesh.devices[:count], ('replica',))
    return dataclasses.replace(devices, strategy=ProgramReplicas(count), mesh=mesh)


def main(out, *layouts):
    if 'x' in layouts[0] and 'TF_CONFIG' not in os.environ:
        sys.exit(launch([sys.executable, '-m', 'tests.pjrt_models', out, *layouts], 2))
    SIZES['tiny'].update(SMALL)
    for _, make, *_ in CASES.values():      # in one order, since they draw from one generator
        opened(make)
    all_devices = selection.select('cpu', 2 if 'x' in layouts[0] else 8, runtime='pjrt')
    for what in layouts:
        layout = what.removeprefix('step:')
        if layout == 'tensorflow':      # last: then TensorFlow lowers no gradient of max-pooling any more
            randomness.make_deterministic('cpu')
            devices = selection.Devices('cpu', 'cpu', 'compared with', tf.distribute.get_strategy())
        else:
            devices = all_devices if 'x' in layout else part(all_devices, int(layout))
        worker = f'.{cluster.task()[1]}' if devices.workers > 1 else ''
        np.savez(pathlib.Path(out) / f'{layout}{worker}.npz', **run_all(layout, devices, what != layout))
    all_devices.wait_for_all()


if __name__ == '__main__':
    main(*sys.argv[1:])
