"""A step that must not be taken: the loss is not finite though every gradient is."""

import keras
import numpy as np
import tensorflow as tf

from tasks.regression import Regression
from training.optimizer import make_optimizer
from training.randomness import install
from training.step import TrainStep


class Overflown(Regression):
    """The loss of Regression plus a constant that has no gradient and is not finite."""

    def __init__(self):
        pass

    def loss(self, y, outputs, weights, training=False):
        total, weight = super().loss(y, outputs, weights)
        return total + tf.constant(float('inf')), weight


def step_once(task_class):
    """Returns (how far the kernel moved, share of skipped steps) of one step of plain SGD."""
    model = install(keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1, name='a')]))
    before = model.get_weights()[0]
    optimizer = make_optimizer('sgd', model.trainable_variables, 0.1)
    step = TrainStep(model, optimizer, task_class.__new__(task_class), batch_size=4, replicas=1)
    totals, _ = tf.function(step)((tf.ones([4, 2]), tf.fill([4], 5.), tf.ones([4])), tf.constant(0, tf.int64))
    return np.abs(model.get_weights()[0] - before).max(), float(totals['skipped'][0])


def test_a_loss_that_is_not_finite_skips_the_step():
    moved, skipped = step_once(Overflown)
    assert (moved, skipped) == (0., 1.)


def test_a_finite_one_does_not():
    moved, skipped = step_once(Regression)
    assert moved > 0.01 and skipped == 0.
