"""Several pairs in one row: each is computed as if it stood alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from errors import UserError
from interpretability.taps import attention_weights
from models.attention import positions_in_segments
from tests.models.examples import source_of
from tests.models.test_decoding import small

BOTH_NORMS = pytest.mark.parametrize('norm', ['pre', 'post'])
PAIRS = [{'source': [5, 6, 7], 'target': [1, 4, 3, 9]}, {'source': [9, 8, 3, 2, 4], 'target': [1, 2]},
         {'source': [2, 2], 'target': [1, 12, 11]}]
LENGTHS = {'source': 12, 'target': 10}


def packed():
    """All pairs in one row, and the second alone in another."""
    rows, x = (PAIRS, PAIRS[1:2]), {}
    for side, length in LENGTHS.items():
        ids = [sum((pair[side] for pair in row), []) for row in rows]
        segments = [sum(([n] * len(pair[side]) for n, pair in enumerate(row, 1)), []) for row in rows]
        x[side], x[f'{side}_segments'] = (
            tf.constant(keras.utils.pad_sequences(values, length, padding='post')) for values in (ids, segments))
    return x


def alone(pair):
    return {**source_of(tf.constant([pair['source']])), 'target': tf.constant([pair['target']])}


def gradients(model, x, weights):
    """Gradients of a loss that is a sum over the words of non-zero weight: weights [B, T]."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(tf.nn.log_softmax(model(x))) * weights[..., None])
    return [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, [v.value for v in model.weights])]


def test_positions_begin_anew_in_each_segment():
    segments = packed()['target_segments']
    assert positions_in_segments(segments).numpy().tolist() == [[0, 1, 2, 3, 0, 1, 0, 1, 2, 0],
                                                                [0, 1, 0, 1, 2, 3, 4, 5, 6, 7]]


@BOTH_NORMS
def test_a_pair_in_a_row_has_the_logits_that_it_has_alone(norm):
    model, start = small(norm=norm), 0
    logits = model(packed()).numpy()
    for pair in PAIRS:
        end = start + len(pair['target'])
        np.testing.assert_allclose(logits[0, start:end], model(alone(pair))[0], atol=1e-5)
        start = end
    np.testing.assert_allclose(logits[1, :2], logits[0, 4:6], atol=1e-5)


@BOTH_NORMS
@pytest.mark.parametrize('side, changed', [('source', 4), ('target', 5)])
def test_a_token_changes_nothing_of_another_pair_nor_of_the_past(norm, side, changed):
    model, x = small(norm=norm), packed()
    ids = x[side].numpy()
    ids[0, changed] += 1  # in the second pair
    difference = np.abs(model(x) - model({**x, side: ids})).max(axis=-1)
    reached = np.zeros_like(difference, bool)
    reached[0] = x['target_segments'][0] == 2
    if side == 'target':
        reached[0, :changed] = False
    assert (difference[reached] > 1e-4).all() and (difference[~reached] == 0).all()


def test_attention_stays_within_a_pair():
    x = packed()
    of = {side: x[f'{side}_segments'].numpy() for side in LENGTHS}
    model = small()
    with attention_weights(model) as recorded:
        model(x)
    for name, weights in recorded.items():
        queries = of['source' if '/encoder' in name else 'target']
        keys = of['target' if '/decoder' in name and 'self' in name else 'source']
        other = queries[:, None, :, None] != keys[:, None, None, :]  # [B, 1, T, S]
        assert weights.shape[2:] == other.shape[2:] and other.any()
        assert (np.where(other, weights, 0) == 0).all(), name


def test_the_gradient_of_a_row_is_the_sum_of_those_of_its_pairs():
    model, x = small(dropout=0.), packed()
    row = {name: value[:1] for name, value in x.items()}
    together = gradients(model, row, tf.cast(row['target_segments'] > 0, tf.float32))
    apart = [gradients(model, alone(pair), tf.ones([1, len(pair['target'])])) for pair in PAIRS]
    for weight, whole, *parts in zip(model.weights, together, *apart, strict=True):
        largest = np.abs(whole).max()
        assert largest > 0, weight.path
        np.testing.assert_allclose(whole, sum(parts), atol=1e-5 * (1 + largest), err_msg=weight.path)


@BOTH_NORMS
def test_a_word_with_nothing_to_look_at_is_finite_and_changes_nothing(norm):
    """The target's padding sees the source's padding; here the first row has none."""
    model, x = small(norm=norm, dropout=0.), packed()
    short = {name: value[:, :10] for name, value in x.items()}
    assert (short['source_segments'][0] > 0).numpy().all() and short['target_segments'][0, -1] == 0
    real = x['target_segments'] > 0
    logits = model(short)
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(logits[real], model(x)[real], atol=1e-5)
    weights = tf.cast(real, tf.float32)
    for value, expected in zip(gradients(model, short, weights), gradients(model, x, weights), strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-5 * (1 + np.abs(expected).max()))


def test_saved_and_of_any_length_in_a_functional_model(tmp_path):
    model, x = small(), packed()
    expected = model(x)
    model.save(tmp_path / 'model.keras')
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / 'model.keras')(x), expected)
    inputs = {name: keras.Input((None,), dtype='int32', name=name) for name in x}
    functional = keras.Model(inputs, model(inputs))
    assert functional.output_shape == (None, None, 13)
    np.testing.assert_allclose(functional(x), expected, atol=1e-6)


@pytest.mark.parametrize('missing', ['source_segments', 'target_segments'])
def test_the_segments_of_one_side_only(missing):
    x = packed()
    del x[missing]
    with pytest.raises(UserError, match='`inputs` of packed rows need source_segments and target_segments'):
        small()(x)


@pytest.mark.slow
@pytest.mark.parametrize('policy, tolerance', [('float32', 1e-5), ('mixed_bfloat16', 0.2), ('mixed_float16', 0.02)])
def test_it_compiles_with_xla_under_any_policy(policy, tolerance):
    x = packed()
    half = tf.function(small(dtype=policy), jit_compile=True)(x)
    np.testing.assert_allclose(half, small()(x), atol=tolerance)
