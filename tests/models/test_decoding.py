"""One position at a time with a cache: what a call computes for all positions at once."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.transformer import Transformer
from tests.models.examples import source_of

# The length of the second is the length of all; the third is empty.
SOURCE = np.array([[5, 6, 7, 0, 0, 0], [9, 8, 3, 2, 4, 5], [0, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0]], 'int32')
TARGET = np.array([[1, 4, 3, 0, 0], [1, 2, 6, 7, 9], [1, 12, 11, 10, 0], [0, 0, 4, 0, 1]], 'int32')
LENGTH = TARGET.shape[1]
VARIANTS = pytest.mark.parametrize('options', [
    {'norm': 'pre'}, {'norm': 'post'}, {'norm': 'pre', 'share_embeddings': True}], ids=['pre', 'post', 'shared'])


def small(**options):
    keras.utils.set_random_seed(3)
    model = Transformer(13, 13, **{'num_layers': 2, 'd_model': 16, 'd_ff': 32, 'heads': 4, 'dropout': 0.5, **options})
    model.build({'source': (None, None), 'source_mask': (None, None), 'target': (None, None)})
    return model


def whole(model):
    return model({**source_of(SOURCE), 'target': TARGET})


def stepwise(model, source, target):
    """`decode` with the cache: one position after the other, in a loop of static shapes."""
    cache = model.start_cache(source_of(source), LENGTH)
    logits = tf.TensorArray(tf.float32, LENGTH, element_shape=(source.shape[0], 13))

    def step(t, logits, cache):
        here, cache = model.decode_step(target[:, t], t, cache)  # [B, V]
        return t + 1, logits.write(t, here), cache

    _, logits, _ = tf.while_loop(lambda t, *_: t < LENGTH, step, (tf.constant(0), logits, cache))
    return tf.transpose(logits.stack(), (1, 0, 2))  # [T, B, V] -> [B, T, V]


@VARIANTS
def test_each_step_gives_the_logits_of_a_call(options):
    model = small(**options)
    expected = whole(model)
    np.testing.assert_allclose(stepwise(model, tf.constant(SOURCE), tf.constant(TARGET)), expected, atol=1e-5)


@pytest.mark.slow
def test_the_steps_compile_with_xla():
    model = small(num_layers=1)
    compiled = tf.function(lambda *inputs: stepwise(model, *inputs), jit_compile=True)
    expected = whole(model)
    np.testing.assert_allclose(compiled(tf.constant(SOURCE), tf.constant(TARGET)), expected, atol=1e-5)


@pytest.mark.parametrize('policy, tolerance', [
    ('mixed_float16', 0.03), ('float16', 0.03), ('mixed_bfloat16', 0.2), ('bfloat16', 0.2)])
def test_half_precision(policy, tolerance):
    model, source = small(dtype=policy), tf.constant(SOURCE)
    cache = model.start_cache(source_of(source), LENGTH)
    assert {value.dtype.name for layer in cache['layers'] for value in layer.values()} == {model.compute_dtype}
    logits = stepwise(model, source, tf.constant(TARGET))
    assert logits.dtype == 'float32'
    np.testing.assert_allclose(logits, whole(model), atol=tolerance)


def test_the_cache_is_written_at_t_only_and_keeps_its_shapes():
    model = small()
    cache = model.start_cache(source_of(SOURCE), LENGTH)
    _, after = model.decode_step(TARGET[:, 2], 2, cache)
    tf.nest.assert_same_structure(cache, after)
    for before, now in zip(tf.nest.flatten(cache), tf.nest.flatten(after), strict=True):
        assert (before.shape, before.dtype) == (now.shape, now.dtype)
    np.testing.assert_array_equal(cache['cross_mask'], after['cross_mask'])
    for before, now in zip(cache['layers'], after['layers'], strict=True):
        for kind in ('keys', 'values'):
            assert now[f'self_{kind}'].shape == (4, 4, LENGTH, 4) and now[f'cross_{kind}'].shape == (4, 4, 6, 4)
            np.testing.assert_array_equal(now[f'cross_{kind}'], before[f'cross_{kind}'])
            written = np.abs(now[f'self_{kind}']).max((0, 1, 3)) > 0  # [T]
            assert written.tolist() == [False, False, True, False, False]


def test_the_examples_of_a_cache_can_be_reordered():
    """What a beam search does between two steps."""
    model = small()
    order = np.array([2, 0, 0, 1])
    cache = model.start_cache(source_of(SOURCE), LENGTH)
    _, cache = model.decode_step(TARGET[:, 0], 0, cache)
    cache = tf.nest.map_structure(lambda value: tf.gather(value, order), cache)
    logits, _ = model.decode_step(TARGET[order, 1], 1, cache)
    expected = model({**source_of(SOURCE[order]), 'target': TARGET[order]})
    np.testing.assert_allclose(logits, expected[:, 1], atol=1e-5)
