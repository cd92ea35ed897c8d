"""Small image splits as batches that are ready: features are computed once, and a batch is one gather."""

import numpy as np
import tensorflow as tf

LIMIT = 256 * 2 ** 20      # bytes of a prepared split
CHUNK = 1024               # examples prepared at a time


class Prepared:
    """A source whose (x, y, weights) are in memory. `gather` still gives the raw examples.

    Resizing 128 digits to the documents' 64x64x3 takes longer than everything else in the loop around a step.
    """

    def __init__(self, source, features):
        self.num_examples, self.fingerprint, self.gather = source.num_examples, source.fingerprint, source.gather
        starts = range(0, source.num_examples, CHUNK)
        chunks = [features.batch(source.gather(tf.range(i, min(i + CHUNK, source.num_examples), dtype=tf.int64)))
                  for i in starts]
        with tf.device('CPU:0'):
            self._arrays = tuple(tf.constant(np.concatenate([t.numpy() for t in part])) for part in zip(*chunks))

    def batch(self, indices):
        """int64 [B] -> (x, y, weights)."""
        return tuple(tf.gather(array, indices) for array in self._arrays)


def prepare(source, features):
    """The source, prepared if it is held in memory and small enough when its images have the model's size."""
    size = 4 * source.num_examples * int(np.prod(features.sizes['input_shape'])) if features.kind == 'image' else None
    in_memory = getattr(source, 'in_memory', False)
    return Prepared(source, features) if in_memory and size is not None and size <= LIMIT else source
