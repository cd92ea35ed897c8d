"""Bilinear enlargement: the function of Keras's layer, without its operation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.upsampling import BilinearUpsampling, shares


def value_and_gradient(layer, x, weights):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        loss = tf.reduce_sum(tf.cast(y, tf.float32) * weights)
    return y, tape.gradient(loss, x)


@pytest.mark.parametrize('factor', [1, 2, 3, 4])
def test_is_keras_bilinear_layer_and_its_gradient(factor):
    random = np.random.default_rng(0)
    x = tf.constant(random.standard_normal((2, 5, 7, 3)), tf.float32)
    weights = tf.constant(random.standard_normal((2, 5 * factor, 7 * factor, 3)), tf.float32)
    ours = value_and_gradient(BilinearUpsampling(factor), x, weights)
    theirs = value_and_gradient(keras.layers.UpSampling2D(factor, interpolation='bilinear'), x, weights)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * np.abs(b).max())


def test_each_enlarged_pixel_is_a_mean():
    np.testing.assert_allclose(np.sum(shares(6, 4), axis=1), np.ones(24), rtol=1e-6)


def test_xla_compiles_it_in_bfloat16():
    layer = BilinearUpsampling(4, dtype='mixed_bfloat16')
    compiled = tf.function(lambda x: value_and_gradient(layer, x, 1.), jit_compile=True)
    y, gradient = compiled(tf.ones((1, 2, 3, 4)))
    assert y.dtype == tf.bfloat16 and np.isfinite(tf.cast(gradient, tf.float32)).all()
