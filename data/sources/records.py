"""TFRecord files, read by index inside the graph: from memory if they are small, else each record from its place.

Python takes no part in a batch. A `tf.numpy_function` in its place (the usual way to random access) is stopped by
Python's lock, and hangs a process that ends, or fails, while an iterator is alive.
"""

import os

import numpy as np
import tensorflow as tf

IN_MEMORY = 2 ** 30      # bytes; MNIST has 2 ** 24, CIFAR-10 2 ** 27, ImageNet 2 ** 37
HEADER, FOOTER = 12, 4   # around each record: its length (8 bytes) and that length's checksum; the record's checksum
BUFFER = 2 ** 16


def open_records(paths):
    """Returns (number of records, function int64 [B] -> string [B])."""
    return _in_memory(paths) if are_small(paths) else _on_disk(paths)


def are_small(paths):
    """Whether the records of these files are held in memory."""
    return sum(tf.io.gfile.stat(path).length for path in paths) <= IN_MEMORY


def _in_memory(paths):
    records = np.array(list(tf.data.TFRecordDataset(paths).as_numpy_iterator()), object)
    with tf.device('CPU:0'):
        records = tf.constant(records, tf.string)
    return len(records), lambda indices: tf.gather(records, indices)


def _on_disk(paths):
    places = np.concatenate([_places(number, path) for number, path in enumerate(paths)])     # [N, 4]
    with tf.device('CPU:0'):
        places, files = tf.constant(places), tf.constant(paths)

    def read(place):
        file, before, size, after = tf.unstack(place)
        record = tf.data.FixedLengthRecordDataset(tf.gather(files, file), size, before, after, BUFFER)
        return record.get_single_element()

    return len(places), lambda indices: tf.map_fn(read, tf.gather(places, indices), fn_output_signature=tf.string)


def _places(number, path):
    """int64 [records, 4]: file number, bytes before the record, its size, bytes after it."""
    places, position, end = [], 0, os.path.getsize(path)
    with open(path, 'rb', buffering=0) as file:
        while position < end:
            file.seek(position)
            size = int.from_bytes(file.read(8), 'little')
            before, position = position + HEADER, position + HEADER + size + FOOTER
            places.append((number, before, size, end - before - size))
    if position != end:
        raise ValueError(f'{path} is cut short')
    return np.array(places, np.int64).reshape(-1, 4)
