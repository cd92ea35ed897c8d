"""Gradients without a scatter: those of TensorFlow's own, and where they are computed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import models
from models.bert import AtPositions
from models.transformer_layers import TokenEmbedding
from training import lookups

IDS = np.array([[3, 0, 3], [1, 3, 5]])


def outputs_and_gradient(layer):
    with tf.GradientTape() as tape:
        outputs = layer(IDS)
        loss = tf.reduce_sum(outputs * tf.reshape(tf.range(24, dtype=outputs.dtype), [2, 3, 4]))
    return outputs.numpy(), tf.convert_to_tensor(tape.gradient(loss, layer.table.value)).numpy()


@pytest.mark.parametrize('precision', ['float32', 'mixed_bfloat16', 'mixed_float16'])
def test_the_gradient_of_an_embedding_is_the_same_product(precision):
    layer = TokenEmbedding(7, 4, dtype=precision)
    layer.build()
    expected = outputs_and_gradient(layer)
    lookups.install(keras.Sequential([layer]))
    assert layer.lookup is lookups.lookup
    for ours, theirs in zip(outputs_and_gradient(layer), expected):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_the_gradient_of_a_choice_of_tokens_is_the_same_product():
    """Also of one that is chosen twice."""
    layer, x = AtPositions(), tf.random.stateless_uniform([2, 5, 4], [1, 2])
    positions, found = np.array([[4, 0, 4], [1, 2, 3]], np.int32), []
    for lookup in (None, lookups.lookup):
        layer.lookup = lookup
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x, positions) * tf.reshape(tf.range(24.), [2, 3, 4]))
        found.append((loss, tape.gradient(loss, x)))
    for ours, theirs in zip(*found):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize('sizes, share', [
    ({'vocabulary_size': 9, 'length': 3, 'outputs': 2}, False),
    ({'source_vocabulary_size': 9, 'target_vocabulary_size': 9}, False),
    ({'source_vocabulary_size': 9, 'target_vocabulary_size': 9}, True)])
def test_every_embedding_of_a_transformer_is_found(sizes, share):
    model = lookups.install(models.build('transformer', sizes, **({'share_embeddings': True} if share else {})))
    found = [layer for layer in model._flatten_layers() if isinstance(layer, TokenEmbedding)]
    assert found and all(layer.lookup is lookups.lookup for layer in found)


# TensorFlow's gradient under determinism, and ours: with the bits of each other.
CROSS_ENTROPY = '''
import numpy as np, tensorflow as tf
from tasks.task import cross_entropy
tf.config.experimental.enable_op_determinism()
random = np.random.default_rng(0)
for shape, classes in (([64], 10), ([8, 12], 300)):
    logits = tf.constant(random.standard_normal([*shape, classes], np.float32) * 9)
    y = tf.constant(random.integers(0, classes, shape), tf.int32)
    weights = tf.constant(random.random(shape, np.float32))
    found = []
    for loss in (cross_entropy, lambda y, x: tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x)):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            total = tf.reduce_sum(weights * loss(y, logits))
        found.append((total, tape.gradient(total, logits)))
    print([np.array_equal(ours, theirs) for ours, theirs in zip(*found)])
'''


def test_the_gradient_of_the_cross_entropy_has_the_bits_of_tensorflows(run_python):
    assert run_python('-c', CROSS_ENTROPY).stdout.splitlines() == ['[True, True]'] * 2
