"""Sums that do not depend on how many pieces there are, and which pieces a replica gets."""

import numpy as np
import pytest
import tensorflow as tf

from errors import UserError
from settings import Training
from training.micro_batches import pieces_of_a_replica, sum_dtype, summed


@pytest.mark.parametrize('accumulate, replicas, pieces', [(1, 1, 1), (1, 4, 1), (8, 1, 8), (8, 2, 4), (8, 8, 1),
                                                          (2, 8, 1), (6, 3, 2)])
def test_the_global_pieces_are_spread_over_the_replicas(accumulate, replicas, pieces):
    assert pieces_of_a_replica(accumulate, replicas) == pieces


def test_pieces_that_cannot_be_spread_are_refused():
    with pytest.raises(UserError, match='multiple or a divisor .* Received: accumulate=4, replicas=3'):
        pieces_of_a_replica(4, 3)
    with pytest.raises(UserError, match=r'`accumulate` must divide `batch_size` \(128\). Received: accumulate=3'):
        Training(steps=1, batch_size=128, accumulate=3)


def test_float64_makes_the_order_of_the_pieces_not_matter():
    rows = np.random.RandomState(0).standard_normal([64, 1000]).astype('float32') * 1e3

    def total(rows, pieces, dtype):
        add_up = tf.function(lambda batch: summed(lambda piece, _: tf.reduce_sum(piece, axis=0), batch, pieces, dtype))
        return tf.cast(add_up(tf.constant(rows)), tf.float32).numpy()
    shuffled = rows[::-1].copy()
    assert (total(rows, 64, tf.float64) == total(shuffled, 64, tf.float64)).all()
    assert (total(rows, 64, tf.float32) != total(shuffled, 64, tf.float32)).any()      # or the test shows nothing


def test_each_piece_knows_its_place():
    places = tf.function(lambda batch: summed(lambda piece, i: piece[0] * 10 ** tf.cast(i, tf.float32), batch, 4,
                                              tf.float64))
    assert places(tf.constant([1., 0., 2., 0., 3., 0., 4., 0.])).numpy() == 4321


def test_only_pieces_need_float64_and_a_tpu_has_none():
    assert [sum_dtype(1, 'cpu'), sum_dtype(4, 'cpu'), sum_dtype(4, 'tpu')] == [tf.float32, tf.float64, tf.float32]
