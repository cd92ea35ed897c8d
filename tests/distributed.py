"""Checks that need logical devices: run by tests in one process each, as `python -m tests.distributed NAME`.

A failed collective poisons its process, and logical devices are fixed at its start.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

from strategies import selection
from models.dropout import Dropout
from recipes import Recipe
from tasks.task import Task, weighted
from training.loop import StepRunner
from training.trainer import Trainer

B, F = 16, 4


class Features:
    kind = 'vector'
    sizes = {}


class Squares(Task):
    """Mean squared error whose weights are uneven: the second half of the batch is mostly padding."""
    name, feature_kinds, training_metrics = 'squares', ('vector',), ('mae',)

    def loss(self, y, outputs, weights, label_smoothing=0.):
        return weighted(tf.square(tf.cast(outputs[:, 0], tf.float32) - y), weights)

    def metrics(self, y, outputs, weights):
        return {'mae': weighted(tf.abs(tf.cast(outputs[:, 0], tf.float32) - y), weights)}


def build(batch_norm):
    keras.utils.set_random_seed(1)
    norm = keras.layers.BatchNormalization(synchronized=True, name='n') if batch_norm else \
        keras.layers.LayerNormalization(name='n')
    # BatchNorm takes the mean away, so a bias before it has a gradient of rounding noise, which Adam would blow up.
    dense = keras.layers.Dense(32, name='a', kernel_regularizer='l2', use_bias=not batch_norm)
    return keras.Sequential([keras.layers.Input((F,)), dense,
                             norm, keras.layers.ReLU(name='r'), Dropout(0.5, name='d'),
                             keras.layers.Dense(1, name='b', dtype='float32')], name='m')


def slices(start_step, spoil=None):
    """Batches computed from the step; `spoil` is a step, or several, whose row 13 is not finite."""
    spoilt = tf.constant([] if spoil is None else spoil if np.iterable(spoil) else [spoil], tf.int64)

    def dataset_fn(context=tf.distribute.InputContext()):
        replicas = context.num_replicas_in_sync
        b = B // replicas

        def batch(element):
            step, replica = element // replicas, element % replicas
            x = tf.random.stateless_uniform([B, F], seed=tf.stack([step, 5]))
            bad = tf.one_hot(13, B)[:, None] * tf.where(tf.reduce_any(step == spoilt), 1., 0.)
            x = tf.where(bad > 0, float('inf'), x)
            weights = tf.where(tf.range(B) % 5 + tf.cast(step % 3, tf.int32) < 4, 1., 0.)
            weights *= tf.where(tf.range(B) < B // 2, 1., tf.where(tf.range(B) % 2 == 0, 0., 1.))
            y = tf.reduce_sum(x, axis=1)
            rows = slice(None) if replicas == 1 else None
            part = [t if rows else t[replica * b:replica * b + b] for t in (x, y, weights)]
            return tuple(tf.ensure_shape(t, [b, *t.shape[1:]]) for t in part)
        return tf.data.Dataset.counter(start_step * replicas).map(batch)
    return dataset_fn


def run(devices, jit=False, spoil=None, steps=6, batch_norm=False, **overrides):
    recipe = Recipe(batch_size=B, steps=steps, **{'optimizer': 'adamw', 'learning_rate': 0.05, 'weight_decay': 0.1,
                                                  'clip_norm': 0.3, 'ema': 0.9, **overrides})
    task = Squares(Features)
    trainer = Trainer(recipe, devices, task, lambda: build(batch_norm), total_steps=steps, workdir='unused', jit=jit)
    runner = StepRunner(devices.strategy, trainer._step, lambda start: slices(start, spoil), 0)
    return trainer, task.results(runner(steps).totals)


def copies(trainer):
    """Every replica's copy of every variable of the state."""
    return {name: [np.array(v) for v in getattr(variable, 'values', (variable,))]
            for name, variable in trainer.state.variables.items()}


SGD = {'optimizer': 'sgd', 'momentum': 0.9, 'nesterov': True, 'learning_rate': 0.02}
CASES = {
    'adamw, clip, decay, ema, dropout, regulariser, uneven weights': {},
    'accumulate': {'accumulate': 2},
    'xla': {'jit': True},
    'batch norm': {'batch_norm': True},
    'sgd': SGD,
    'a row that is not finite': {'spoil': 2},
    'batch norm, a row that is not finite': {'spoil': 2, 'batch_norm': True},
    'float16, a row that is not finite': {'spoil': 2, 'precision': 'float16', **SGD},
    'bfloat16': {'precision': 'bfloat16', **SGD},
}


def steps(replicas, *names):
    """Prints, for each case, the weights after a run; the copies of all replicas must be equal bit for bit."""
    devices = selection.select('cpu', virtual_devices=int(replicas))
    tf.config.experimental.enable_op_determinism()
    out = {}
    for name in names or CASES:
        case = CASES[name]
        policies = {'float16': 'mixed_float16', 'bfloat16': 'mixed_bfloat16'}
        keras.config.set_dtype_policy(policies.get(case.get('precision'), 'float32'))
        trainer, values = run(devices, **case)
        state = copies(trainer)
        for variable, values_ in state.items():
            for value in values_[1:]:
                np.testing.assert_array_equal(value, values_[0], err_msg=f'{name}: {variable}')
        out[name] = {'values': values, 'state': {k: v[0].ravel().tolist() for k, v in state.items()}}
    print(json.dumps(out))


if __name__ == '__main__':
    globals()[sys.argv[1]](*sys.argv[2:])
