"""Sums over micro-batches and replicas that do not depend on how many there are of each.

A float32 sum depends on its order in the last bit, and training multiplies such a bit: 60 steps of the documents' CNN
make 2e-3 of 1e-7. So a recipe may say in how many micro-batches its global batch is computed (`accumulate`). One
micro-batch then has the same shape, and the same bits, on any number of replicas that divides them; and float64, which
holds the sum of a few float32 numbers exactly (but for one in 2^29 whose rounding is a tie), makes the order of adding
them not matter.
"""

import tensorflow as tf

from errors import UserError


def pieces_of_a_replica(accumulate, replicas):
    """How many of the global batch's `accumulate` micro-batches each replica computes in sequence.

    On more replicas than micro-batches each computes a part of one.

    Raises:
        UserError: they cannot be spread evenly.
    """
    if accumulate % replicas and replicas % accumulate:
        raise UserError('`accumulate` must be a multiple or a divisor of the number of replicas. '
                        f'Received: accumulate={accumulate}, replicas={replicas}')
    return max(1, accumulate // replicas)


def sum_dtype(accumulate, hardware):
    """float64, where the order of adding must not matter; a TPU has none."""
    return tf.float64 if accumulate > 1 and hardware != 'tpu' else tf.float32


def summed(function, batch, pieces, dtype):
    """Splits a batch into pieces along its first axis and sums what function(piece, i) returns, in `dtype`.

    Args:
        function: (nested tensors [b / pieces, ...], int64 scalar) -> nested tensors.
        batch: nested tensors [b, ...] of static shapes.
    """
    first = tf.zeros([], tf.int64)
    if pieces == 1:
        return _cast(function(batch, first), dtype)
    split = tf.nest.map_structure(lambda t: tf.reshape(t, [pieces, t.shape[0] // pieces, *t.shape[1:]]), batch)
    total = _cast(function(tf.nest.map_structure(lambda t: t[0], split), first), dtype)
    for i in tf.range(1, pieces, dtype=tf.int64):
        part = function(tf.nest.map_structure(lambda t: t[i], split), i)
        total = tf.nest.map_structure(tf.add, total, _cast(part, dtype))
    return total


def _cast(nested, dtype):
    return tf.nest.map_structure(lambda t: tf.cast(t, dtype), nested)
