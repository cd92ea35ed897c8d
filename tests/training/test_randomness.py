"""Draws as functions of (seed, step, position): slices of one mask, never shared, the same under XLA."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from draws import Draws
from models.dropout import Dropout
from training.randomness import at, install


def bits(seed=3, step=5, first_row=0, rows=12, name='a', width=7, jit=False):
    def draw(step, first_row):
        return Draws(seed, step, first_row).bits(name, (rows, width))
    return tf.function(draw, jit_compile=jit)(tf.constant(step, tf.int64), tf.constant(first_row, tf.int64)).numpy()


@pytest.mark.parametrize('width', [1, 4, 7, 9])
def test_a_slice_is_the_slice_of_the_whole_draw(width):
    whole = bits(width=width)
    for first_row, rows in ((0, 6), (6, 6), (3, 2), (11, 1)):
        np.testing.assert_array_equal(bits(first_row=first_row, rows=rows, width=width),
                                      whole[first_row:first_row + rows])


def test_xla_draws_the_same_bits():
    np.testing.assert_array_equal(bits(first_row=3, jit=True), bits(first_row=3))


@pytest.mark.parametrize('change', [{'seed': 4}, {'step': 6}, {'name': 'b'}, {'first_row': 12}])
def test_every_coordinate_changes_the_draw(change):
    assert (bits() != bits(**change)).mean() > 0.99


def test_bits_are_uniform_and_rows_differ():
    drawn = bits(rows=4000, width=50)
    assert abs((drawn >= 2 ** 32 * 0.3).mean() - 0.7) < 0.005
    assert len(np.unique(drawn[:, 0])) == 4000


@pytest.mark.parametrize('jit', [False, True])
def test_floats_and_integers_come_from_the_bits(jit):
    draw = tf.function(lambda: (Draws(3).uniform('a', (4000, 5)), Draws(3).integers('a', (4000, 5), -2, 3)),
                       jit_compile=jit)
    uniform, integers = (t.numpy() for t in draw())
    np.testing.assert_array_equal(uniform, (Draws(3).bits('a', (4000, 5)).numpy() >> 8) * np.float32(2 ** -24))
    assert 0 <= uniform.min() < 0.001 and 0.999 < uniform.max() < 1
    assert abs(np.bincount(integers.ravel() + 2, minlength=5) / 20_000 - 0.2).max() < 0.02


def test_seeds_of_31_bits_and_numbers_of_rows_in_the_graph():
    draw = tf.function(lambda rows: Draws(2 ** 31 - 1, 2 ** 31 - 1).bits('a', (rows, 3)))
    np.testing.assert_array_equal(draw(tf.constant(7)), Draws(2 ** 31 - 1, 2 ** 31 - 1).bits('a', (7, 3)))


def dropped(model, first_row=0, step=1, rows=8):
    with at(7, tf.constant(step, tf.int64), tf.constant(first_row, tf.int64)):
        return model(tf.ones([rows, 100]), training=True).numpy()


def test_dropout_of_two_replicas_is_that_of_one_and_never_shared():
    model = install(keras.Sequential([keras.layers.Input((100,)), Dropout(0.25)]))
    whole, halves = dropped(model), [dropped(model, first_row, rows=4) for first_row in (0, 4)]
    np.testing.assert_array_equal(whole, np.concatenate(halves))
    assert (halves[0] != halves[1]).any()
    assert set(np.unique(whole)) == {np.float32(0.), np.float32(1 / 0.75)}
    np.testing.assert_array_equal(model(tf.ones([8, 100]), training=False), np.ones([8, 100]))


def test_two_layers_and_two_calls_of_one_layer_draw_apart():
    shared = Dropout(0.5)
    inputs = keras.layers.Input((100,))
    model = install(keras.Model(inputs, [shared(inputs), shared(inputs), Dropout(0.5)(inputs)]))
    with at(7, tf.constant(1, tf.int64), tf.constant(0, tf.int64)):
        a, b, c = (t.numpy() for t in model(tf.ones([8, 100]), training=True))
    assert (a != b).any() and (a != c).any() and (b != c).any()


def test_layers_of_keras_differ_between_replicas_and_not_after_a_resume():
    model = install(keras.Sequential([keras.layers.Input((100,)), keras.layers.Dropout(0.5)]))
    first = dropped(model, rows=4)
    np.testing.assert_array_equal(dropped(model, rows=4), first)           # no hidden state moved on
    assert (dropped(model, first_row=4, rows=4) != first).any()
    assert (dropped(model, step=2, rows=4) != first).any()


def test_training_outside_a_position_is_an_error():
    model = install(keras.Sequential([keras.layers.Input((100,)), Dropout(0.5)]))
    with pytest.raises(RuntimeError, match='outside training.randomness.at'):
        model(tf.ones([2, 100]), training=True)
