"""Rows: a source's examples as a task prepared them. A step gathers its rows, and the task makes a batch of them.

Rows have `num_examples`, `fingerprint` and `gather(indices)`, int64 [B] -> {name: tensor [B, ...]}. Preparing is
deterministic, so it may happen in each step (Mapped), once (Cached), or once with several examples per row (Packed, in
packing.py). Paired ones have a second row to mix with.
"""

import numpy as np
import tensorflow as tf
import tqdm

LIMIT = 256 * 2 ** 20      # bytes of prepared rows that are kept
CHUNK = 1024               # examples prepared at a time
FILES = 32                 # files decoded at a time


class Mapped:
    """Prepared whenever they are gathered. fields: which of the source's fields `prepare` reads."""

    def __init__(self, source, prepare, fields):
        self.num_examples, self.fingerprint = source.num_examples, source.fingerprint
        self._source, self._prepare, self._fields = source, prepare, fields

    def gather(self, indices):
        return self._prepare(self._source.gather(indices, self._fields))


class Cached:
    """Prepared once. Resizing 128 digits to 64x64x3 takes longer than everything else in the loop around a step.

    prepare: how; see `prepared` and `decoded`.
    """

    def __init__(self, rows, prepare=None):
        self.num_examples, self.fingerprint = rows.num_examples, rows.fingerprint
        with tf.device('CPU:0'):
            self._arrays = {name: tf.constant(array) for name, array in (prepare or prepared)(rows).items()}

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
    """The rows of a source: cached if they are small enough, of a source in memory or of files, else mapped."""
    rows = Mapped(source, prepare, fields)
    if not (source.in_memory or source.decodes_files):
        return rows
    # Of a graph, which reads no file.
    specs = tf.function(rows.gather).get_concrete_function(tf.TensorSpec([1], tf.int64)).structured_outputs
    if not all(spec.shape.is_fully_defined() for spec in specs.values()):
        return rows
    size = sum(spec.shape.num_elements() * spec.dtype.size for spec in specs.values())
    if size * source.num_examples > LIMIT:
        return rows
    return Cached(rows, prepared if source.in_memory else decoded)


def prepared(rows):
    """{name: array [N, ...]} of all rows."""
    # Eagerly: a graph would fold constants, and its last bits differ from those of an eager call.
    chunks = [rows.gather(tf.range(i, min(i + CHUNK, rows.num_examples), dtype=tf.int64))
              for i in range(0, rows.num_examples, CHUNK)]
    return {name: np.concatenate([chunk[name].numpy() for chunk in chunks]) for name in chunks[0]}


def decoded(rows):
    """`prepared` of files: in a graph and on all cores, as `Mapped` does it in a step; with a bar at a terminal.

    Raises:
        tf.errors.OpError: a file is broken.
    """
    count, arrays = rows.num_examples, {}
    starts = tf.data.Dataset.range(0, count, FILES)
    # Of a static shape: past the end, the last row again.
    chunks = starts.map(lambda start: rows.gather(tf.minimum(start + tf.range(FILES, dtype=tf.int64), count - 1)),
                        num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    with tqdm.tqdm(total=count, unit='file', desc='decodes', leave=False, disable=None, dynamic_ncols=True) as bar:
        for start, chunk in zip(range(0, count, FILES), chunks.as_numpy_iterator()):
            size = min(FILES, count - start)
            for name, values in chunk.items():
                array = arrays.setdefault(name, np.empty([count, *values.shape[1:]], values.dtype))
                array[start:start + size] = values[:size]
            bar.update(size)
    return arrays
