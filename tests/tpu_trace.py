"""Traces our step, loop and evaluation through the real TPUStrategy: python -m tests.tpu_trace OUT [NAME ...]

Writes what is in the graphs to OUT, as JSON, for tests/test_virtual_tpu.py, which sets the environment. It is run under
several versions of TensorFlow, so it needs no pytest. NAME: see CASES; default all.
"""

import collections
import dataclasses
import json
import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf

import models
import recipes
from experiment import parts
from experiment.workdir import Workdir
from models.batch_norm import BatchNormalization
from settings.models import Model
from strategies import selection
from tests import flawed, virtual_tpu
from training.evaluation import run_batches
from training.interrupt import FLAGS
from training.loop import run_steps


def batch_norm(input_shape, outputs=10):
    return keras.Sequential([keras.Input(input_shape), keras.layers.Conv2D(4, 3, name='convolution'),
                             BatchNormalization(name='norm'), keras.layers.Flatten(),
                             keras.layers.Dense(outputs, dtype='float32', name='logits')])


models.MODELS.update(batch_norm=batch_norm, flawed=flawed.builder(*flawed.LAYERS))

SCENES = {'dataset': 'digit_scenes', 'width': 8, 'batch_size': 16}      # which every machine has
CASES = {name: {'model': name} for name in models.MODELS} | {
    'airbench': {'model': 'airbench', 'dataset': 'digits', 'image_size': 16, 'width': 4, 'batch_size': 16},
    'centernet': {'model': 'centernet', **SCENES}, 'unet': {'model': 'unet', **SCENES},
    'deeplab': {'model': 'deeplab', 'size': '18', 'image_size': 64, **SCENES},
    'bert': {'model': 'bert', 'batch_size': 16},
    '2 hosts': {'model': 'mlp', 'hosts': 2},
    '2 hosts of a pod, clip, decay, average': {'model': 'lstm', 'hosts': 2, 'cores': 16, 'batch_size': 64,
                                               'clip_norm': 1., 'weight_decay': 0.1, 'optimizer': 'adamw', 'ema': 0.9},
    'micro-batches': {'model': 'mlp', 'accumulate': 16},
    'muon': {'model': 'mlp', 'optimizer': 'muon'},
    'packed rows, beam search': {'model': 'transformer', 'dataset': 'gettext/de', 'packing': True, 'batch_size': 16,
                                 'share_embeddings': True, 'beam_size': 2},
}


def section(name):
    """The settings of a model that only this file knows."""
    return type(name, (Model,), {'kind': name})()


def trace(model, cores=8, hosts=1, **overrides):
    """Facts of one recipe on a TPU of `cores` cores on `hosts` hosts."""
    known = model in recipes.DEFAULT
    _, recipe = recipes.find(model=model if known else 'mlp',
                             dataset=overrides.get('dataset') if model == 'transformer' else None)
    recipe = recipe.replace(**overrides)
    if not known:
        recipe = dataclasses.replace(recipe, model=section(model))
    dataset, task = parts.open_data(recipe)
    batches = parts.Batches(recipe, dataset, task, cores)
    spec, (dataset_fn, *_) = batches.spec, batches.evaluation('test')      # which prepares rows, outside any graph
    with virtual_tpu.tracing():
        strategy = tf.distribute.TPUStrategy(virtual_tpu.VirtualTPU(cores, hosts))
        devices = selection.Devices('tpu', 'tpu', 'a virtual one', strategy)
        trainer, _ = parts.make_trainer(recipe, batches.rows, task, devices, Workdir('unused'))
        trainer.count_flops(spec)
        with tf.device('CPU:0'):
            flags, banned = tf.Variable(tf.zeros([FLAGS])), tf.Variable(tf.zeros([0], tf.int64), shape=[None])

        @tf.function
        def loop(start, count):
            iterator = iter(strategy.distribute_datasets_from_function(batches.training(0)))
            return run_steps(strategy, trainer.train_step, iterator, start, count, flags, banned)

        @tf.function
        def evaluate(count):
            iterator = iter(strategy.distribute_datasets_from_function(lambda c: dataset_fn(c).repeat()))
            return run_batches(strategy, trainer.evaluation_step, iterator, count)

        scalar, count = tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.int32)
        return {'precision': trainer.training.precision, 'flops': trainer.flops_per_step,
                'weights': len(trainer.model.trainable_weights), 'totals': len(trainer.train_step.totals_names) - 2,
                'batch_norms': sum(hasattr(layer, 'all_reduce') for layer in trainer.model._flatten_layers()),
                'variables': len(trainer.state.variables), 'assigned': assigned(trainer.state),
                'loop': facts(loop.get_concrete_function(scalar, scalar).graph),
                'evaluation': facts(evaluate.get_concrete_function(count).graph)}


def assigned(state):
    """{core: assignments to the state's variables on it}, when they are made and when they are restored."""
    state.restore({name: np.zeros(v.shape, v.dtype.as_numpy_dtype) for name, v in state.variables.items()})
    ours = {copy.handle.name for variable in state.variables.values() for copy in variable.values}
    return collections.Counter(op.device for op in tf.compat.v1.get_default_graph().get_operations()
                               if op.type == 'AssignVariableOp' and op.inputs[0].name in ours)


def facts(graph):
    """The facts of each strategy.run in the graph."""
    found = {}
    for cluster in virtual_tpu.clusters(graph):
        brought = ('Placeholder', 'IteratorGetNext', 'TPUReplicatedInput')
        tensors = [t for op in cluster.on_host for t in op.outputs if op.type not in brought]
        found[cluster.graph.name] = {
            'replicas': cluster.replicas, 'all_reduced': cluster.all_reduced(),
            'violations': [v._asdict() for v in cluster.violations()],
            'on_tpu': collections.Counter(op.type for op in cluster.on_tpu),
            'on_host': collections.Counter(op.type for op in cluster.on_host),
            'largest_on_host': max((t.shape.num_elements() or 0 for t in tensors if t.dtype.is_floating), default=0)}
    return list(found.values())


def main(out, *names):
    results = {name: trace(**CASES[name]) for name in names or CASES}
    pathlib.Path(out).write_text(json.dumps({'tensorflow': tf.__version__, 'results': results}))


if __name__ == '__main__':
    main(*sys.argv[1:])
