"""Rows: a source's examples as a task prepared them. A step gathers its rows, and the task makes a batch of them.

Rows have `num_examples`, `fingerprint` and `gather(indices)`, int64 [B] -> {name: tensor [B, ...]}. Preparing is
deterministic, so it may happen in each step (Mapped), once (Cached), or once with several examples per row (Packed, in
packing.py). Paired ones have a second row to mix with.
"""

import numpy as np
import tensorflow as tf

LIMIT = 256 * 2 ** 20      # bytes of prepared rows that are kept
CHUNK = 1024               # examples prepared at a time


class Mapped:
    """Prepared whenever they are gathered. fields: which of the source's fields `prepare` reads."""

    def __init__(self, source, prepare, fields):
        self.num_examples, self.fingerprint = source.num_examples, source.fingerprint
        self._source, self._prepare, self._fields = source, prepare, fields

    def gather(self, indices):
        return self._prepare(self._source.gather(indices, self._fields))


class Cached:
    """Prepared once. Resizing 128 digits to 64x64x3 takes longer than everything else in the loop around a step."""

    def __init__(self, rows):
        self.num_examples, self.fingerprint = rows.num_examples, rows.fingerprint
        with tf.device('CPU:0'):
            self._arrays = {name: tf.constant(array) for name, array in prepared(rows).items()}

    def gather(self, indices):
        return {name: tf.gather(array, indices) for name, array in self._arrays.items()}


class Paired:
    """Rows with another row beside each, to be mixed with: beside each `name`, `gather` gives `partner_name`.

    The pipeline says which: one that (seed, epoch, position) names, so that a row need not look at its batch.
    """

    def __init__(self, rows):
        self.num_examples, self.fingerprint, self._rows = rows.num_examples, rows.fingerprint, rows

    def gather(self, indices, partners=None):
        """indices, partners: int64 [B]; without partners, a row's is the next one."""
        partners = (indices + 1) % self.num_examples if partners is None else partners
        beside = {f'partner_{name}': value for name, value in self._rows.gather(partners).items()}
        return {**self._rows.gather(indices), **beside}


def of(source, prepare, fields):
    """The rows of a source: cached if it is held in memory and they are small enough, else mapped."""
    rows = Mapped(source, prepare, fields)
    if not source.in_memory:
        return rows
    one = rows.gather(tf.zeros([1], tf.int64))
    size = sum(value.shape.num_elements() * value.dtype.size for value in one.values())
    return Cached(rows) if size * source.num_examples <= LIMIT else rows


def prepared(rows):
    """{name: array [N, ...]} of all rows."""
    # Eagerly: a graph would fold constants, and its last bits differ from those of an eager call.
    chunks = [rows.gather(tf.range(i, min(i + CHUNK, rows.num_examples), dtype=tf.int64))
              for i in range(0, rows.num_examples, CHUNK)]
    return {name: np.concatenate([chunk[name].numpy() for chunk in chunks]) for name in chunks[0]}
