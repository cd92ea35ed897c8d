"""Packed rows: several sentence pairs in each training row, instead of padding.

Sentences are short and rows have one static length: of gettext/de in rows of 64 tokens a side, 83 % is padding. Buckets
of six lengths, each a shape to compile, leave 29 %, packs 7 %. A pack is a row that holds pairs one after the other;
the numbers of its segments keep attention inside each pair (arXiv:2107.02027).

Packs are made once, from the training split alone. Which pairs share one does not depend on the run's seed or step, so
packs are shuffled and dealt to replicas as examples are (see pipeline.py).
"""

import numpy as np
import tensorflow as tf

from data.rows import prepared
from data.source import hash_arrays

BLOCK = 1_024      # pairs that are packed together; first-fit's time is quadratic in it, 8,192 saves 0.3 % of the room


class Packed:
    """Rows of packs; `gather` gives source, source_segments, target, target_segments, y, all int32 [B, length].

    Segments are numbered 1, 2, ... in a row, 0 is padding; pair k of a pack is segment k on both sides. Within its
    segment a pair stands as it does alone, less its padding: `y` ends in the end token, `target` is what the decoder
    reads.

    Args:
        rows: of token ids, source [N, S] and target [N, T], each with its end; all are read now.
        source_special, target_special: the special ids of the two tokenizers.
        length: tokens of a row, per side; at least S and T, so that each pair fits.
    """

    def __init__(self, rows, source_special, target_special, length):
        pairs = prepared(rows)
        tokens = pairs['source'], pairs['target']                                   # [N, S], [N, T]
        special = source_special, target_special
        if length < max(side.shape[1] for side in tokens):
            raise ValueError(f'`length` must be at least those of the rows, {tokens[0].shape[1]} and '
                             f'{tokens[1].shape[1]}. Received: length={length}')
        sizes = np.stack([np.count_nonzero(side != s.pad, axis=1) for side, s in zip(tokens, special)], axis=1)
        pack, segment = assign(sizes, length)                                       # sizes [N, 2]
        self.num_examples = int(pack.max()) + 1
        (source, source_segments), (y, target_segments) = (
            _place(side, sizes[:, i], pack, segment, [self.num_examples, length], special[i].pad)
            for i, side in enumerate(tokens))
        arrays = {'source': source, 'target': _shifted(y, target_segments, target_special), 'y': y,
                  'source_segments': source_segments, 'target_segments': target_segments}
        real = np.count_nonzero(source_segments) + np.count_nonzero(target_segments)
        self.padding_share = 1 - real / (2 * y.size)
        self.fingerprint = hash_arrays({**arrays, 'pairs': np.array([rows.fingerprint], object)})
        with tf.device('CPU:0'):
            self._arrays = {name: tf.constant(array) for name, array in arrays.items()}

    def gather(self, indices):
        return {name: tf.gather(array, indices) for name, array in self._arrays.items()}

    def __str__(self):
        return f'packed into {self.num_examples:,} rows, {self.padding_share:.1%} padding'


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


def _place(tokens, sizes, pack, segment, shape, pad):
    """Puts the tokens of each pair [N, L] behind those of the segments before it: (ids, segments), each [packs, L]."""
    order = np.lexsort((segment, pack))
    before = np.cumsum(sizes[order]) - sizes[order]                 # tokens before it, of all packs
    starts = np.zeros(len(sizes), np.int64)
    first_of_pack = segment[order] == 1
    starts[order] = before - before[first_of_pack][np.cumsum(first_of_pack) - 1]
    rows, within = np.nonzero(tokens != pad)                        # of each real token
    place = (pack[rows], starts[rows] + within)
    ids, segments = np.full(shape, pad, np.int32), np.zeros(shape, np.int32)
    ids[place], segments[place] = tokens[rows, within], segment[rows]
    return ids, segments


def _shifted(y, segments, special):
    """What the decoder reads: each segment's tokens after the start token, without its end."""
    before = np.pad(segments, [(0, 0), (1, 0)])[:, :-1]
    shifted = np.where(segments == before, np.pad(y, [(0, 0), (1, 0)])[:, :-1], special.start)
    return np.where(segments == 0, special.pad, shifted).astype(np.int32)
