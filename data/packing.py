"""Packed rows: several sentence pairs in each training row, instead of padding.

Sentences are short and rows have one static length: of gettext/de in rows of 64 tokens a side, 83 % is padding. Buckets
of six lengths, each a shape to compile, leave 29 %, packs 7 %. A pack is a row that holds pairs one after the other;
the numbers of its segments keep attention inside each pair (arXiv:2107.02027).

Packs are made once, from the training split alone. Which pairs share one does not depend on the run's seed or step, so
packs are shuffled and dealt to replicas as examples are (see pipeline.py).
"""

import numpy as np
import tensorflow as tf

from data.prepared import CHUNK, Prepared
from data.source import hash_arrays
from data.text import PADDING, START

BLOCK = 1_024      # pairs that are packed together; first-fit's time is quadratic in it, 8,192 saves 0.3 % of the room


class Packed(Prepared):
    """A source of packs; `batch` gives them, there are no raw examples to gather.

    x['source'], x['source_segments'] are int32 [B, S]; x['target'], x['target_segments'], y are int32 [B, T], and
    weights float32 [B, T]; S = T = length. Segments are numbered 1, 2, ... in a row, 0 is padding; pair k of a pack is
    segment k on both sides. Within its segment a pair stands as `features.batch` gives it, less its padding.

    Args:
        source: of sentence pairs; all are read and encoded now.
        features: TextPairFeatures.
        length: tokens of a row, of each side; at least the features' lengths, so that each pair fits.
    """

    def __init__(self, source, features, length):
        if length < max(features.source_length, features.target_length):
            raise ValueError(f'`length` must be at least those of the features, {features.source_length} and '
                             f'{features.target_length}. Received: length={length}')
        tokens = encode_pairs(source, features)                                      # [N, S], [N, T]
        sizes = np.stack([np.count_nonzero(side, axis=1) for side in tokens], axis=1)          # [N, 2]
        pack, segment = assign(sizes, length)
        self.num_examples = int(pack.max()) + 1
        (source_ids, source_segments), (y, target_segments) = (
            _place(side, sizes[:, i], pack, segment, [self.num_examples, length]) for i, side in enumerate(tokens))
        x = {'source': source_ids, 'target': _shifted(y, target_segments),
             'source_segments': source_segments, 'target_segments': target_segments}
        real = target_segments != 0
        self.padding_share = 1 - (np.count_nonzero(source_segments) + np.count_nonzero(real)) / (2 * real.size)
        self.fingerprint = hash_arrays({**x, 'y': y, 'pairs': np.array([source.fingerprint], object)})
        with tf.device('CPU:0'):
            self._arrays = tf.nest.map_structure(tf.constant, (x, y, real.astype(np.float32)))

    def batch(self, indices):
        """int64 [B] -> (x, y, weights)."""
        return tf.nest.map_structure(lambda array: tf.gather(array, indices), self._arrays)


def pack(source, features):
    """The pairs of a source in rows of the features' length."""
    return Packed(source, features, max(features.source_length, features.target_length))


def encode_pairs(source, features):
    """(source ids [N, S], target ids with END [N, T]), int32, of all pairs."""
    encode = tf.function(lambda indices: _ids(features, source.gather(indices)),
                         input_signature=[tf.TensorSpec([None], tf.int64)])
    chunks = [encode(tf.range(i, min(i + CHUNK, source.num_examples), dtype=tf.int64))
              for i in range(0, source.num_examples, CHUNK)]
    return [np.concatenate(side) for side in zip(*chunks)]


def _ids(features, examples):
    x, y, _ = features.batch(examples)
    return x['source'], y


def assign(sizes, length):
    """First-fit: each pair goes into the first pack that has room for both its sides (Johnson 1974).

    The longest first, within blocks of a fixed permutation: what is left over at the end is then short.

    Args:
        sizes: int [N, 2], the tokens of each side.

    Returns:
        The pack of each pair, int64 [N], and its segment in there, from 1, int32 [N].
    """
    packs, segments = np.zeros(len(sizes), np.int64), np.zeros(len(sizes), np.int32)
    order, first = np.random.RandomState(0).permutation(len(sizes)), 0
    for block in np.split(order, range(BLOCK, len(order), BLOCK)):
        block = block[np.argsort(-sizes[block].max(axis=1), kind='stable')]
        room, count = np.full([len(block), 2], length), np.zeros(len(block), np.int32)
        for pair in block:
            chosen = np.argmax((room >= sizes[pair]).all(axis=1))
            room[chosen] -= sizes[pair]
            count[chosen] += 1
            packs[pair], segments[pair] = first + chosen, count[chosen]
        first += np.count_nonzero(count)
    return packs, segments


def _place(tokens, sizes, pack, segment, shape):
    """Puts the tokens of each pair [N, L] behind those of the segments before it: (ids, segments), each [packs, L]."""
    order = np.lexsort((segment, pack))
    before = np.cumsum(sizes[order]) - sizes[order]                 # tokens before it, of all packs
    starts = np.zeros(len(sizes), np.int64)
    first_of_pack = segment[order] == 1
    starts[order] = before - before[first_of_pack][np.cumsum(first_of_pack) - 1]
    rows, within = np.nonzero(tokens != PADDING)                    # of each real token
    place = (pack[rows], starts[rows] + within)
    ids, segments = np.full(shape, PADDING, np.int32), np.zeros(shape, np.int32)
    ids[place], segments[place] = tokens[rows, within], segment[rows]
    return ids, segments


def _shifted(y, segments):
    """What the decoder reads: each segment's tokens after START, without its END."""
    before = np.pad(segments, [(0, 0), (1, 0)])[:, :-1]
    shifted = np.where(segments == before, np.pad(y, [(0, 0), (1, 0)])[:, :-1], START)
    return np.where(segments == 0, PADDING, shifted).astype(np.int32)
