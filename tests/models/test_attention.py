"""Attention against NumPy and against Keras's own layer."""

import keras
import numpy as np
import pytest
from keras import ops

from interpretability.taps import attention_weights
from models.attention import MultiHeadAttention, causal_mask, padding_mask, scaled_dot_product_attention


def randoms(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype('float32')


def numpy_attention(q, k, v, hidden):
    """One query at a time, in float64, over the keys that are not hidden."""
    output, weights = np.zeros((len(q), v.shape[1])), np.zeros((len(q), len(k)))
    for t in range(len(q)):
        seen = [s for s in range(len(k)) if not hidden[t, s]]
        scores = np.array([np.dot(q[t], k[s]) for s in seen], 'float64') / np.sqrt(q.shape[1])
        shares = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        for share, s in zip(shares, seen, strict=True):
            weights[t, s] = share
            output[t] += share * v[s]
    return output, weights


def test_masks():
    tokens = np.array([[True, True, False], [True, False, False]])
    np.testing.assert_array_equal(padding_mask(tokens), [[[[0, 0, 1]]], [[[0, 1, 1]]]])
    np.testing.assert_array_equal(causal_mask(3), [[[[0, 1, 1], [0, 0, 1], [0, 0, 0]]]])


@pytest.mark.parametrize('masked', [False, True])
def test_scaled_dot_product_attention_against_numpy(masked):
    q, k, v = randoms(2, 3, 5, 8), randoms(2, 3, 7, 8, seed=1), randoms(2, 3, 7, 4, seed=2)
    hidden = np.random.default_rng(3).random((2, 1, 5, 7)) < 0.4
    hidden[..., 0] = False
    output, weights = scaled_dot_product_attention(*map(ops.convert_to_tensor, (q, k, v)), hidden if masked else None)
    for b, h in np.ndindex(2, 3):
        expected = numpy_attention(q[b, h], k[b, h], v[b, h], hidden[b, 0] & masked)
        np.testing.assert_allclose(output[b, h], expected[0], atol=1e-5)
        np.testing.assert_allclose(weights[b, h], expected[1], atol=1e-6)


@pytest.mark.parametrize('dtype', ['float32', 'float16', 'bfloat16'])
def test_rows_that_are_hidden_whole_stay_finite(dtype):
    q = ops.cast(randoms(1, 4, 8), dtype)
    output, weights = scaled_dot_product_attention(q, q, q, ops.ones((1, 4, 4)))
    assert keras.backend.standardize_dtype(output.dtype) == keras.backend.standardize_dtype(weights.dtype) == dtype
    assert np.isfinite(ops.cast(output, 'float32')).all()
    np.testing.assert_allclose(np.sum(ops.cast(weights, 'float32'), -1), 1, atol=1e-2)


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_half_precision_hides_and_does_not_overflow(dtype):
    # A head of 256 dimensions with entries of 20: q k^T = 102,400, above float16's 65,504; scaled 6,400.
    q = ops.cast(np.full((1, 3, 256), 20), dtype)
    v = ops.cast(randoms(1, 3, 4), dtype)
    output, weights = scaled_dot_product_attention(q, q, v, causal_mask(3)[0])
    np.testing.assert_allclose(ops.cast(weights, 'float32')[0], np.tril(np.ones((3, 3))) / [[1], [2], [3]], atol=2e-3)
    np.testing.assert_allclose(ops.cast(output[0, 0], 'float32'), ops.cast(v[0, 0], 'float32'))


def with_weights(layer, *arguments, **options):
    with attention_weights(layer) as recorded:
        return layer(*arguments, **options), recorded[layer.path]


@pytest.mark.parametrize('masked', [False, True])
def test_multi_head_attention_against_keras(masked):
    x, memory = randoms(2, 5, 12), randoms(2, 7, 12, seed=1)
    ours = MultiHeadAttention(d_model=12, heads=3)
    theirs = keras.layers.MultiHeadAttention(num_heads=3, key_dim=4, use_bias=False)
    ours(x, memory), theirs(x, memory)
    query, key, value, output = ours.get_weights()
    # Keras keeps the heads as a dimension of their own: [D, h, d] in, [h, d, D] out.
    theirs.set_weights([*(w.reshape(12, 3, 4) for w in (query, key, value)), output.reshape(3, 4, 12)])
    hidden = np.random.default_rng(3).random((2, 1, 5, 7)) < 0.4
    hidden[..., 0] = False
    y, weights = with_weights(ours, x, memory, hidden if masked else None)
    expected = theirs(x, memory, attention_mask=~hidden[:, 0] if masked else None, return_attention_scores=True)
    np.testing.assert_allclose(y, expected[0], atol=1e-5)
    np.testing.assert_allclose(weights, expected[1], atol=1e-6)
    np.testing.assert_array_equal(ours(x, memory, hidden if masked else None), y)


def test_memory_may_have_another_size():
    layer = MultiHeadAttention(d_model=8, heads=2)
    assert layer(randoms(2, 3, 8), randoms(2, 5, 6)).shape == (2, 3, 8)
    assert [tuple(weight.shape) for weight in layer.weights] == [(8, 8), (6, 8), (6, 8), (8, 8)]


def test_dropout_acts_on_the_weights_in_training():
    layer = MultiHeadAttention(d_model=8, heads=2, dropout=0.5)
    x = randoms(1, 3, 8)
    y, weights = with_weights(layer, x, x)
    layer.weights_dropout.keep_mask = lambda shape, rate: ops.zeros(shape, 'bool')
    dropped, same_weights = with_weights(layer, x, x, training=True)
    assert np.abs(y).max() > 0
    np.testing.assert_array_equal(dropped, np.zeros((1, 3, 8)))
    np.testing.assert_array_equal(same_weights, weights)


def test_heads_must_divide_d_model():
    with pytest.raises(ValueError, match='`d_model` must be divisible by `heads`. Received: d_model=10, heads=3'):
        MultiHeadAttention(d_model=10, heads=3)
