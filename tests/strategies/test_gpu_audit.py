"""The steps of every recipe, as a GPU would be given them: each operation has a kernel there, none is refused under
determinism, and XLA is given no scatter. Nothing is run; TensorFlow's GPU wheel is the one that has the kernels.

Keras is told that there is a GPU, so that its LSTM is cuDNN's. The lowering to HLO is that for a CPU.
"""

import dataclasses
import functools
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import config as tensorflow_config
from tensorflow.python.framework import kernels

import recipes
from experiment import parts
from experiment.workdir import Workdir
from strategies import selection
from tests.distributed import write_data
from training.interrupt import FLAGS
from training.loop import StepRunner

# Data that every machine has, in place of what may be missing; of the same fields.
DATA = {'sst2': 'moods', 'imdb': 'moods', 'trec': 'moods', 'squad': 'answers', 'gettext/de': 'pairs',
        'fashion_mnist': 'digits', 'cifar10': 'digits', 'imagenet2012': 'digits', **dict.fromkeys(
            ('fashion_scenes', 'bccd', 'camvid', 'coco/2017', 'oxford_iiit_pet'), 'digit_scenes')}
QUICK = ('mlp_digits', 'mlp_diabetes', 'lstm_digits')
# What a GPU does not compute, and why that costs nothing.
ON_HOST = {('Const', 'string'): 'the texts of assertions, read when they fail'}
# Operations whose GPU kernel raises under determinism, from the messages in TensorFlow 2.21's library.
REFUSED = {'AdjustContrast', 'AdjustContrastv2', 'Bincount', 'CropAndResizeGradBoxes', 'CropAndResizeGradImage',
           'DebugNumericSummaryV2', 'DenseBincount', 'Dilation2DBackpropFilter', 'Dilation2DBackpropInput',
           'FakeQuantWithMinMaxVarsGradient', 'FakeQuantWithMinMaxVarsPerChannelGradient', 'MaxPoolGradWithArgmax',
           'ResizeNearestNeighborGrad', 'ScatterAdd', 'ScatterSub', 'SoftmaxCrossEntropyWithLogits',
           'SparseSoftmaxCrossEntropyWithLogits', 'SparseTensorDenseMatMul', 'Svd', 'Timestamp'}


@pytest.fixture(autouse=True)
def a_gpu_and_determinism(monkeypatch):
    """Keras sees a GPU, and TensorFlow's Python takes its deterministic operations; not in the tests after these."""
    monkeypatch.setattr(tf.config, 'list_logical_devices', lambda kind=None: ['a GPU'])
    monkeypatch.setattr(tensorflow_config, 'is_op_determinism_enabled', lambda: True)


@functools.cache
def folder():
    """A folder that holds moods, and pairs: texts and what is said of them."""
    folder = pathlib.Path(write_data())
    lines = (folder / 'moods' / 'train.tsv').read_text().splitlines()
    (folder / 'pairs' / 'train').mkdir(parents=True)
    for side, texts in zip(('target', 'source'), zip(*(line.split('\t') for line in lines))):
        (folder / 'pairs' / 'train' / f'{side}.txt').write_text('\n'.join(texts) + '\n')
    return str(folder)


def opened(name, hardware='gpu', jit='auto', **fields):
    """(Trainer, Batches) of a recipe, of a small batch, for `hardware` that is not there."""
    keras.backend.clear_session()
    _, recipe = recipes.load(name)
    fields |= {'vocabulary_size': 300} if recipe.data.dataset == 'gettext/de' else {}      # its stand-in is small
    dataset = DATA.get(recipe.data.dataset, recipe.data.dataset)
    fields |= {'image_size': 64 if dataset == 'digit_scenes' else 32} if recipe.values().get('image_size') else {}
    fields |= {'width': 8} if dataset == 'digit_scenes' else {}
    recipe = recipe.replace(steps=9, warmup_steps=1, batch_size=4, accumulate=min(2, recipe.training.accumulate),
                            dataset=dataset, **fields)
    devices = dataclasses.replace(selection.select('cpu'), hardware=hardware)
    dataset, task = parts.open_data(recipe, folder())
    batches = parts.Batches(recipe, dataset, task, 1)
    return parts.make_trainer(recipe, batches.rows, task, devices, Workdir('unused'), jit)[0], batches


def specs_of_a_step(batches):
    return batches.spec, tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.bool), tf.TensorSpec([FLAGS])


def operations(function, specs):
    """{(operation, ((attribute, type), ...))} in the graph of a function and in those that it calls."""
    graph = tf.function(function).get_concrete_function(*specs).graph.as_graph_def()
    nodes = [*graph.node, *(node for called in graph.library.function for node in called.node_def)]
    return {(node.op, tuple(sorted((name, value.type) for name, value in node.attr.items()
                                   if value.WhichOneof('value') == 'type'))) for node in nodes}


@functools.cache
def kernels_of(operation):
    return [kernel for kernel in kernels.get_registered_kernels_for_op(operation).kernel
            if kernel.device_type in ('GPU', 'DEFAULT')]


def without_kernel(found):
    """Names, with their types, of the operations that a GPU cannot compute."""
    def fits(kernel, types):
        return all(types.get(c.name) in (None, *c.allowed_values.list.type) for c in kernel.constraint)
    lacking = [(operation, types) for operation, types in found
               if not any(fits(kernel, dict(types)) for kernel in kernels_of(operation))]
    return {(operation, *(tf.as_dtype(value).name for _, value in types)) for operation, types in lacking}


def audit(found):
    """What is wrong with a set of operations on a GPU; empty if nothing is."""
    return sorted(without_kernel(found) - set(ON_HOST)) + sorted(REFUSED & {operation for operation, _ in found})


def tier(name):
    """The slow tier has the first recipe of those that differ in numbers and data alone, not in operations."""
    kinds = {}
    for other in recipes.NAMES:
        recipe = recipes.load(other)[1]
        model = {name: value for name, value in recipe.model.changed().items() if name != 'weights'}
        kind = (recipe.data.kind, recipe.model.kind, recipe.task.kind, recipe.training.optimizer, *map(repr, (
            model, recipe.task.changed(), sorted(recipe.training.changed()), getattr(recipe.data, 'packing', False))))
        kinds.setdefault(kind, other)
    return () if name in QUICK else pytest.mark.slow if name in kinds.values() else pytest.mark.results


def recipes_and_precisions():
    """The slow tier has bfloat16, where most operations are in both types."""
    for name in recipes.NAMES:
        yield pytest.param(name, 'bfloat16', marks=tier(name))
        yield pytest.param(name, 'float32', marks=tier(name) and pytest.mark.results)


@pytest.mark.parametrize('name, precision', list(recipes_and_precisions()))
def test_every_operation_of_a_step_and_an_evaluation_runs_on_a_gpu(name, precision):
    trainer, batches = opened(name, jit='off', precision=precision)
    step = operations(trainer.train_step, specs_of_a_step(batches))
    assert audit(step | operations(trainer.evaluation_step, batches.evaluation_spec)) == []
    assert ('CudnnRNNV3' in {operation for operation, _ in step}) == name.startswith('lstm')


@pytest.mark.parametrize('function, spec, wrong', [
    (lambda x: tf.raw_ops.ScaleAndTranslate(images=x, size=[2, 2], scale=[1., 1.], translation=[0., 0.]),
     tf.TensorSpec([1, 4, 4, 1]), ('ScaleAndTranslate', 'float32')),
    (lambda x: tf.strings.as_string(x), tf.TensorSpec([]), ('AsString', 'float32')),
    (lambda x: tf.math.bincount(x), tf.TensorSpec([3], tf.int32), 'DenseBincount'),
    (lambda x: tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(features=x, labels=tf.zeros([2], tf.int32)),
     tf.TensorSpec([2, 3]), 'SparseSoftmaxCrossEntropyWithLogits')])
def test_an_operation_that_a_gpu_lacks_or_refuses_is_found(function, spec, wrong):
    assert wrong in audit(operations(function, [spec]))


def scatters(trainer, batches):
    """How many scatters there are in the step, in XLA's terms."""
    specs = specs_of_a_step(batches)
    flat = tf.nest.flatten(specs)
    step = tf.function(lambda *tensors: trainer.train_step(*tf.nest.pack_sequence_as(specs, tensors)), jit_compile=True)
    return len(re.findall(r' scatter\(', step.experimental_get_compiler_ir(*flat)(stage='hlo')))


# Those of which XLA does not compile the step on a GPU, and why.
NOT_COMPILED = {'cnn': 'max-pooling', 'lstm': 'cuDNN kernel of LSTM', 'resnet_imagenet': 'max-pooling',
                **dict.fromkeys(('airbench', 'centernet', 'detector', 'unet', 'deeplab'), 'max-pooling')}


@pytest.mark.parametrize('name', [pytest.param(name, marks=tier(name)) for name in recipes.NAMES])
def test_xla_is_given_no_scatter_for_a_gpu(name):
    """Under determinism each one becomes a sort, or a loop over its rows."""
    trainer, batches = opened(name)
    if reason := NOT_COMPILED.get(name, NOT_COMPILED.get(name.split('_')[0])):
        assert not trainer.jit and reason in trainer.jit_reason
    else:
        assert trainer.jit and scatters(trainer, batches) == 0
        assert audit(operations(trainer.evaluation_step, batches.evaluation_spec)) == []      # of the same model


@pytest.mark.slow
@pytest.mark.parametrize('name, expected', [('transformer_sst2', 1), ('transformer_number_words', 2)])
def test_a_scatter_would_be_found(name, expected):
    """Those of the embeddings, which have another gradient for a GPU alone."""
    assert scatters(*opened(name, 'cpu', 'on')) == expected


@pytest.mark.slow
def test_a_step_without_scatters_computes_the_same(measured):
    found = []
    for hardware in ('gpu', 'cpu'):
        trainer, batches = opened('transformer_sst2', hardware, 'on', optimizer='sgd', learning_rate=0.5)
        StepRunner(trainer.devices.strategy, trainer.train_step, batches.training, 0)(3)
        found.append(trainer.state.arrays())
        assert (trainer.model.get_layer('tokens').lookup is not None) == (hardware == 'gpu')
    worst = max(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-3)
                for ours, theirs in zip(*(arrays.values() for arrays in found)))
    measured('E7', 'transformer_sst2, xla, embeddings without scatters', '1', worst)
    assert worst < 1e-4
