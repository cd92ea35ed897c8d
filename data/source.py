"""Sources: where raw examples are and how a batch of them is fetched by index, inside the graph.

A source has
    num_examples             int
    gather(indices, fields)  int64 [B] -> {name: tensor [B, ...]} of raw examples (uint8 images, strings, ...); only
                             the fields that are named, or all
    fingerprint              a short hash of what it holds, so that a run never resumes on other data
    in_memory                whether its examples are held in memory
    decodes_files            whether fetching decodes a file of each example, which takes long

Random access is what makes a batch a function of the step number (see pipeline.py).
"""

import hashlib
import re

import numpy as np
import tensorflow as tf

WORDS = re.compile(r'[^\W\d_]+')


class Tensors:
    """Examples held in memory: one array per field, first axis the example."""

    in_memory, decodes_files = True, False

    def __init__(self, **arrays):
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f'`arrays` must have equal lengths. Received: {lengths}')
        self.num_examples = next(iter(lengths.values()))
        self.fingerprint = hash_arrays(arrays)
        with tf.device('CPU:0'):   # tf.data reads it there; a GPU copy would travel back for each batch
            self._tensors = {name: tf.constant(array) for name, array in arrays.items()}

    def gather(self, indices, fields=None):
        return {name: tf.gather(self._tensors[name], indices) for name in fields or self._tensors}


class Subset:
    """The examples of another source whose indices are given, in that order."""

    def __init__(self, source, indices):
        indices = np.asarray(indices, np.int64)
        self.num_examples = len(indices)
        self.fingerprint = hash_arrays({'indices': indices, 'source': np.array([source.fingerprint], object)})
        self._source, self.in_memory, self.decodes_files = source, source.in_memory, source.decodes_files
        with tf.device('CPU:0'):
            self._indices = tf.constant(indices)

    def gather(self, indices, fields=None):
        return self._source.gather(tf.gather(self._indices, indices), fields)


def hash_arrays(arrays):
    """16 hex digits of SHA-256 over names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        array = np.ascontiguousarray(array)
        digest.update(f'{name} {array.dtype} {array.shape}'.encode())
        digest.update('\0'.join(map(str, array)).encode() if array.dtype == object else array.tobytes())
    return digest.hexdigest()[:16]


def split_indices(count, validation, test):
    """Three disjoint index arrays (train, validation, test) of a fixed permutation of range(count).

    The permutation does not depend on the run's seed: a split belongs to the dataset, so runs can be compared.
    """
    order = np.random.RandomState(0).permutation(count)
    return order[validation + test:], order[:validation], order[validation:validation + test]


def hash_of(text):
    """A number of the text's letters alone: case, digits and punctuation make no other text."""
    words = ' '.join(WORDS.findall(text.casefold())) or text
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], 'big')


def split_of(text, held_out):
    """The split that a text's hash names: held_out % of all texts are for validation, and as many for test."""
    return ['validation', 'test', 'train'][min(hash_of(text) % 100 // held_out, 2)]
