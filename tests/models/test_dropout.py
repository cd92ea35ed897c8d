"""The dropout layer: Keras's own until a trainer sets `keep_mask`."""

import keras
import numpy as np
import pytest
from keras import ops

from models.dropout import Dropout
from models.transformer import Transformer
from tests.models.examples import source_of


def checkerboard(shape, rate):
    """Keeps every second unit, whatever the rate."""
    return ops.reshape(ops.arange(int(np.prod(shape))) % 2 == 0, shape)


def test_keep_mask_is_honoured():
    layer = Dropout(0.2)
    calls = []
    layer.keep_mask = lambda shape, rate: calls.append((shape, rate)) or checkerboard(shape, rate)
    x = np.arange(1, 13, dtype='float32').reshape(2, 3, 2)
    expected = np.where(np.arange(12).reshape(2, 3, 2) % 2 == 0, x / 0.8, 0)
    np.testing.assert_allclose(layer(x, training=True), expected, rtol=1e-6)
    assert calls == [((2, 3, 2), 0.2)]


def test_keep_mask_acts_in_training_only():
    layer = Dropout(0.5)
    layer.keep_mask = checkerboard
    x = np.ones((4, 4), 'float32')
    np.testing.assert_array_equal(layer(x), x)
    np.testing.assert_array_equal(layer(x, training=False), x)
    assert np.any(np.array(layer(x, training=True)) == 0)


def test_rate_0_does_nothing():
    layer = Dropout(0)
    layer.keep_mask = checkerboard
    x = np.ones((4, 4), 'float32')
    np.testing.assert_array_equal(layer(x, training=True), x)


def test_rate_1_drops_all_and_has_a_finite_result():
    layer = Dropout(1)
    layer.keep_mask = checkerboard
    np.testing.assert_array_equal(layer(np.ones((4, 4), 'float32'), training=True), np.zeros((4, 4)))


def test_noise_shape_is_the_shape_of_the_mask():
    layer = Dropout(0.5, noise_shape=(None, 1, 3))
    layer.keep_mask = checkerboard
    y = np.array(layer(np.ones((2, 5, 3), 'float32'), training=True))
    expected = 2 * (np.arange(6).reshape(2, 1, 3) % 2 == 0)
    np.testing.assert_array_equal(y, np.broadcast_to(expected, (2, 5, 3)))


def test_two_halves_of_a_batch_draw_the_slices_of_the_whole():
    global_mask = np.random.default_rng(0).random((8, 16)) < 0.7
    x = np.random.default_rng(1).random((8, 16), 'float32')
    layer = Dropout(0.3)
    layer.keep_mask = lambda shape, rate: ops.convert_to_tensor(global_mask)
    whole = np.array(layer(x, training=True))
    halves = []
    for rows in (slice(0, 4), slice(4, 8)):
        layer.keep_mask = lambda shape, rate, rows=rows: ops.convert_to_tensor(global_mask[rows])
        halves.append(np.array(layer(x[rows], training=True)))
    np.testing.assert_array_equal(np.concatenate(halves), whole)


@pytest.mark.parametrize('policy', ['float32', 'mixed_float16', 'mixed_bfloat16'])
def test_result_has_the_compute_dtype(policy):
    layer = Dropout(0.5, dtype=policy)
    layer.keep_mask = checkerboard
    y = layer(np.ones((2, 2), 'float32'), training=True)
    assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype


def test_without_keep_mask_it_is_the_layer_of_keras():
    x = np.ones((100, 100), 'float32')
    ours = np.array(Dropout(0.3, seed=1)(x, training=True))
    np.testing.assert_array_equal(ours, keras.layers.Dropout(0.3, seed=1)(x, training=True))
    assert abs((ours > 0).mean() - 0.7) < 0.02  # 4 standard deviations


def test_keep_mask_is_neither_shared_nor_saved(tmp_path):
    model = keras.Sequential([keras.Input((4,)), Dropout(0.5, name='dropout')])
    model.layers[0].keep_mask = checkerboard
    assert Dropout(0.5).keep_mask is None
    model.save(tmp_path / 'model.keras')
    loaded = keras.models.load_model(tmp_path / 'model.keras')
    assert type(loaded.layers[0]) is Dropout
    assert loaded.layers[0].keep_mask is None


def test_transformer_drops_only_with_our_layer():
    model = Transformer(11, 13, num_layers=1, d_model=8, d_ff=16, heads=2, dropout=0.5, name='model')
    model.build({'source': (None, None), 'source_mask': (None, None), 'target': (None, None)})
    drops = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Dropout)]
    assert all(type(layer) is Dropout for layer in drops)
    # Embeddings 2, encoder layer 2 + 1 attention, decoder layer 3 + 2 attentions.
    assert len(drops) == len({layer.path for layer in drops}) == 10
    assert 'model/decoder_0/cross_attention/weights_dropout' in {layer.path for layer in drops}
    inputs = {**source_of(np.ones((2, 3), 'int32')), 'target': np.ones((2, 4), 'int32')}
    logits = model(inputs)
    for layer in drops:  # each by itself, to see that each is reached: it drops nothing, and scales by 2
        layer.keep_mask = lambda shape, rate: ops.ones(shape, 'bool')
        for other in drops:
            other.rate = 0.5 if other is layer else 0
        assert np.abs(model(inputs, training=True) - logits).max() > 1e-4, layer.path
    layer.keep_mask = None
    assert np.abs(model(inputs, training=True) - model(inputs, training=True)).max() > 1e-3
    np.testing.assert_array_equal(model(inputs), model(inputs))
