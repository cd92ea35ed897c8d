"""Packs hold each pair once, as the features give it; and they follow from the data alone."""

import time

import numpy as np
import pytest
import tensorflow as tf

from data.packing import BLOCK, Packed, assign
from data.pipeline import training_slices
from data.rows import Mapped, prepared
from data.source import Subset
from data.tokenizers.special import PLAIN
from draws import Draws
from tests.opened import opened

PAIRS = 1_500
PADDING, START, END = PLAIN.pad, PLAIN.start, PLAIN.end


@pytest.fixture(scope='module')
def number_words():
    """(task, rows of the pairs, each alone)."""
    dataset, task = opened('number_words', 'translation')
    return task, rows_of(task, Subset(dataset.train, np.arange(PAIRS) * 17))


def rows_of(task, source):
    return Mapped(source, task.prepare, list(task.roles.values()))


def pack(rows, length):
    return Packed(rows, PLAIN, PLAIN, length)


@pytest.fixture(scope='module', params=[14, 40])
def packed(request, number_words):
    return pack(number_words[1], request.param)


def everything(rows):
    x = {name: array.numpy() for name, array in rows.gather(tf.range(rows.num_examples, dtype=tf.int64)).items()}
    return x, x.pop('y')


def unpacked(source):
    """(source ids, decoder's input, y) of each segment of each pack, as tuples."""
    x, y = everything(source)
    pairs = []
    for row in range(source.num_examples):
        segments = [x[f'{side}_segments'][row] for side in ('source', 'target')]
        assert set(segments[0]) - {0} == set(segments[1]) - {0} == set(range(1, segments[0].max() + 1))
        pairs += [(tuple(x['source'][row][segments[0] == k]), tuple(x['target'][row][segments[1] == k]),
                   tuple(y[row][segments[1] == k])) for k in range(1, segments[0].max() + 1)]
    return pairs


def test_each_pair_is_in_one_pack_as_it_is_alone(number_words, packed):
    task, rows = number_words
    x, y, weights = task.batch(rows.gather(tf.range(PAIRS, dtype=tf.int64)), Draws(0))
    expected = [(tuple(s[s != PADDING]), tuple(t[w == 1]), tuple(o[w == 1])) for s, t, o, w in
                zip(x['source'].numpy(), x['target'].numpy(), y.numpy(), weights.numpy())]
    found = unpacked(packed)
    assert sorted(found) == sorted(expected) and len(set(found)) == PAIRS
    assert all(target[0] == START and target[1:] == y[:-1] and y[-1] == END for _, target, y in found)


def test_segments_lie_one_behind_the_other(packed):
    x, y = everything(packed)
    for name, ids in (('source', x['source']), ('target', y)):
        segments = x[f'{name}_segments']
        assert np.array_equal(segments == 0, ids == PADDING)
        after = np.where(segments == 0, np.iinfo(np.int32).max, segments)        # rises, then only padding
        assert (np.diff(after, axis=1) >= 0).all() and (segments[:, 0] == 1).all()
    assert np.array_equal(x['target'] == PADDING, y == PADDING)


def test_padding_share(packed):
    x, y = everything(packed)
    real = np.count_nonzero(x['source']) + np.count_nonzero(y)
    assert packed.padding_share == pytest.approx(1 - real / (x['source'].size + y.size))


def test_packs_leave_little_room(number_words):
    rows = number_words[1]
    assert pack(rows, 100).padding_share < 0.2 < 0.8 < 1 - sum(
        np.count_nonzero(side) / (PAIRS * 100) for side in prepared(rows).values()) / 2


def test_the_same_data_gives_the_same_packs(number_words, packed):
    task, rows = number_words
    length = everything(packed)[1].shape[1]
    again = pack(rows, length)
    assert again.fingerprint == packed.fingerprint
    tf.nest.map_structure(np.testing.assert_array_equal, everything(again), everything(packed))
    fewer = opened('number_words', 'translation')[0].train
    assert pack(rows_of(task, Subset(fewer, np.arange(PAIRS - 1) * 17)), length).fingerprint != packed.fingerprint


def test_batches_have_static_shapes_and_an_epoch_is_every_pack_once(number_words):
    task, rows = number_words
    packed = pack(rows, 14)
    batches = training_slices(packed, task.batch, batch_size=packed.num_examples, seed=3)()
    x, y, weights = batches.element_spec
    shape = (packed.num_examples, 14)
    assert {name: spec.shape for name, spec in x.items()} == dict.fromkeys(
        ('source', 'target', 'source_segments', 'target_segments'), shape)
    assert y.shape == weights.shape == shape and x['source_segments'].dtype == y.dtype == tf.int32
    _, y, weights = next(iter(batches))
    assert np.array_equal(weights, (y != PADDING).numpy().astype(np.float32))
    assert sorted(map(tuple, y.numpy())) == sorted(map(tuple, everything(packed)[1]))


@pytest.mark.parametrize('count', [1, 2, BLOCK, BLOCK + 1, 2 * BLOCK + 7])
def test_packs_are_full_but_never_over(count):
    sizes = np.random.RandomState(count).randint(1, 65, size=(count, 2))
    packs, segments = assign(sizes, 64)
    assert set(packs) == set(range(packs.max() + 1)) and len(set(zip(packs, segments))) == count
    filled = np.zeros([packs.max() + 1, 2], int)
    np.add.at(filled, packs, sizes)
    assert filled.max() <= 64
    assert np.array_equal(np.bincount(packs), [segments[packs == p].max() for p in range(len(filled))])


def test_rows_shorter_than_a_pair_are_refused(number_words):
    with pytest.raises(ValueError, match='`length` must be at least .* 14 and 12. Received: length=13'):
        pack(number_words[1], 13)


def test_forty_thousand_pairs_take_seconds():
    sizes = np.minimum(64, np.random.RandomState(0).geometric(1 / 11, size=(40_000, 2)))
    start = time.process_time()
    packs, _ = assign(sizes, 64)
    assert time.process_time() - start < 10
    assert sizes.sum() / (2 * 64 * (packs.max() + 1)) > 0.85
