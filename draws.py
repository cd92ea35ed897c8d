"""Random numbers as a function of (seed, step, row): the one place in the project that draws.

Philox (doi:10.1145/2063384.2063405) is counter-based: element k of a draw needs only (key, k). So a replica computes
just its own rows of the numbers that one device would have drawn for the whole batch, and a resumed run draws the same
numbers again without any state.
"""

import hashlib
import math

import tensorflow as tf

PHILOX = 1
NUMBERS_PER_COUNT = 4          # Philox yields four 32-bit numbers per counter value


class Draws:
    """The draws of rows first_row, first_row + 1, ... of a step's global batch.

    A draw has a name; the same name in the same step gives the same numbers. The sizes of a shape [rows, ...] are
    static, but for the number of rows, which may be a tensor.

    Args:
        seed: integer, the run's.
        step, first_row: int64 scalars, in the graph or not.
    """

    def __init__(self, seed, step=0, first_row=0):
        self.seed, self.step, self.first_row = seed, step, first_row

    def key(self, name):
        """uint64 [1], the Philox key, and uint64 [2], the first counter, of a draw."""
        digest = hashlib.sha256(f'{self.seed} {name}'.encode()).digest()
        # 31 bits: XLA and TensorFlow's kernels make different keys of seeds that do not fit an int32.
        high = tf.constant(int.from_bytes(digest[:4], 'big') >> 1, tf.int64)
        return tf.raw_ops.StatelessRandomGetKeyCounter(seed=tf.stack([high, tf.cast(self.step, tf.int64)]))

    def bits(self, name, shape):
        """uint32 [rows, ...], all values equally likely.

        Bits are the same from XLA and from TensorFlow's kernels, which make different floats of them.
        """
        key, counter = self.key(name)
        # Each row takes a whole number of counter values, so that a row can start anywhere in the batch.
        size = math.prod(shape[1:])
        counts = -(-size // NUMBERS_PER_COUNT)
        skipped = tf.cast(tf.cast(self.first_row, tf.int64) * counts, tf.uint64)
        numbers = tf.raw_ops.StatelessRandomUniformFullIntV2(
            shape=tf.stack([shape[0], counts * NUMBERS_PER_COUNT]), key=key,
            counter=tf.stack([counter[0] + skipped, counter[1]]), alg=PHILOX, dtype=tf.uint32)
        return tf.reshape(numbers[:, :size], shape)

    def uniform(self, name, shape):
        """float32 [rows, ...] in [0, 1): multiples of 2**-24, exact on any hardware."""
        bits = tf.bitwise.right_shift(self.bits(name, shape), tf.constant(8, tf.uint32))
        return tf.cast(bits, tf.float32) * 2. ** -24

    def integers(self, name, shape, low, high):
        """int32 [rows, ...] in low .. high - 1; high - low is at most 2**24."""
        return low + tf.cast(self.uniform(name, shape) * float(high - low), tf.int32)
