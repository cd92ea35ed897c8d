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
# SplitMix64, doi:10.1145/2660193.2660195: the increment, and the two rounds (shift, factor).
INCREMENT, MIX = 0x9e3779b97f4a7c15, ((30, 0xbf58476d1ce4e5b9), (27, 0x94d049bb133111eb))


class Draws:
    """The draws of rows first_row, first_row + 1, ... of a step's global batch.

    A draw has a name; the same name in the same step gives the same numbers. The sizes of a shape [rows, ...] are
    static, but for the number of rows, which may be a tensor.

    Args:
        seed: integer, the run's.
        step, first_row: int64 scalars, in the graph or not.
        example, epoch: int64 [rows] or None, which example a row is and in which epoch; see `which` for None.
        partner: int64 [rows] or None, the example that stands beside a row, see data/rows.py Paired.
    """

    def __init__(self, seed, step=0, first_row=0, example=None, epoch=None, partner=None):
        self.seed, self.step, self.first_row = seed, step, first_row
        self.example, self.epoch, self.partner = example, epoch, partner

    def of_partners(self):
        """The draws of the partners of the same rows: other numbers, and other examples."""
        return Draws(f'{self.seed} partner', self.step, self.first_row, self.partner, self.epoch)

    def which(self, rows):
        """int64 [rows], twice: the example of each row and its epoch; where unknown, its place and the step."""
        example, epoch = self.example, self.epoch
        if example is None:
            example = tf.cast(self.first_row, tf.int64) + tf.range(rows, dtype=tf.int64)
        return example, tf.fill([rows], tf.cast(self.step, tf.int64)) if epoch is None else epoch

    def bits_of_examples(self, name, rows):
        """uint64 [rows], all values equally likely: the same for an example in every step."""
        digest = hashlib.sha256(f'{self.seed} {name}'.encode()).digest()
        z = tf.cast(self.which(rows)[0], tf.uint64) * tf.constant(INCREMENT, tf.uint64)
        z += tf.constant(int.from_bytes(digest[:8], 'big'), tf.uint64)
        for shift, factor in MIX:
            z = _xor_shift(z, shift) * tf.constant(factor, tf.uint64)
        return _xor_shift(z, 31)

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


def _xor_shift(z, bits):
    return tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, tf.constant(bits, tf.uint64)))
