"""Random numbers as a function of (seed, step, position in the global batch).

Keras layers draw from a SeedGenerator whose state is a variable: hidden state that must be saved, and the same on all
replicas, so replicas share their dropout masks. Here every draw is computed. Philox (doi:10.1145/2063384.2063405) is
counter-based: element k of a draw needs only (key, k), so a replica draws just its own rows of the mask that one device
would have drawn for the whole batch.
"""

import contextlib
import math
import threading

import keras
import tensorflow as tf

PHILOX = 1
NUMBERS_A_COUNT = 4          # Philox yields four 32-bit numbers a counter value
_current = threading.local()   # MirroredStrategy traces each replica in a thread of its own


class Position:
    """Where in the run a draw stands. step and first_row are int64 scalars, in the graph or not."""

    def __init__(self, seed, step, first_row):
        self.seed, self.step, self.first_row = seed, step, first_row
        self._draws = {}

    def key(self, layer):
        """uint64 [1] Philox key and uint64 [2] counter of this layer's next draw in this step."""
        draw = self._draws[layer] = self._draws.get(layer, -1) + 1      # a shared layer draws more than once a step
        low = tf.cast(self.step, tf.int64)
        high = tf.constant(self.seed * 2 ** 20 + layer * 2 ** 8 + draw, tf.int64)
        return tf.raw_ops.StatelessRandomGetKeyCounter(seed=tf.stack([high, low]))

    def bits(self, layer, shape):
        """uint32 of static `shape` [rows, ...], all values alike: the rows from first_row on of the global draw.

        Bits and not floats: XLA and TensorFlow's kernels agree on Philox, but make floats of different bits.
        """
        key, counter = self.key(layer)
        # Each row takes a whole number of counter values, so that a row can start anywhere in the batch.
        counts = -(-math.prod(shape[1:]) // NUMBERS_A_COUNT)
        skipped = tf.cast(tf.cast(self.first_row, tf.int64) * counts, tf.uint64)
        counter = tf.stack([counter[0] + skipped, counter[1]])
        numbers = tf.raw_ops.StatelessRandomUniformFullIntV2(
            shape=tf.constant([shape[0], counts * NUMBERS_A_COUNT]), key=key, counter=counter, alg=PHILOX,
            dtype=tf.uint32)
        return tf.reshape(numbers[:, :math.prod(shape[1:])], shape)


@contextlib.contextmanager
def at(seed, step, first_row):
    """While it is open, the layers of an `install`ed model draw for these rows of this step."""
    before = getattr(_current, 'position', None)
    _current.position = Position(seed, step, first_row)
    try:
        yield
    finally:
        _current.position = before


def install(model):
    """Makes every random layer of the model draw from the open `at`. Returns the model."""
    for number, layer in enumerate(model._flatten_layers()):
        if hasattr(layer, 'keep_mask'):
            layer.keep_mask = _keep_mask(number)
        elif isinstance(getattr(layer, 'seed_generator', None), keras.random.SeedGenerator):
            layer.seed_generator.next = _next_seed(number)
    return model


def _next_seed(layer):
    """For Keras's own random layers: a seed from (seed, step, replica). Replicas differ, a resume does not."""
    def next_seed(ordered=True):
        key, _ = _position().key(layer)
        mixed = tf.bitcast(key, tf.int32)[0] + tf.cast(_position().first_row, tf.int32)     # uint64 [1] -> int32 [2]
        return tf.cast(tf.bitwise.bitwise_and(mixed, 0x7fffffff), tf.int64)
    return next_seed


def _keep_mask(layer):
    return lambda shape, rate: _position().bits(layer, tuple(shape)) >= tf.constant(int(rate * 2 ** 32), tf.uint32)


def _position():
    position = getattr(_current, 'position', None)
    if position is None:
        raise RuntimeError('A random layer was called in training outside training.randomness.at')
    return position
