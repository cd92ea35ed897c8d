"""Mixed images: shares, targets, partners, the same on any replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from data.dataset import Image, Label
from data.inputs.mixing import beta
from data.pipeline import PARTNERS, evaluation_slices, shuffled_rows, training_slices
from data.source import Tensors
from draws import Draws
from tasks.task import mixed_cross_entropy
from tests.opened import one_source, task_of

COUNT, SIZE = 60, (12, 18, 1)


def made(augment, **options):
    """(source, task): each image is of one value, its number over 255, which is its label."""
    values = np.arange(COUNT)
    source = Tensors(image=np.broadcast_to(values[:, None, None, None], (COUNT, *SIZE)).astype(np.uint8),
                     label=values.astype(np.int32))
    names = Label(tuple(map(str, values)))
    return source, task_of('classification', one_source(source, image=Image(SIZE), label=names), augment=augment,
                           options=options)


def batches(augment, count=5, context=None):
    source, task = made(augment)
    dataset_fn = training_slices(task.rows(source, True), task.batch, batch_size=20, seed=1)
    return list(dataset_fn(context or tf.distribute.InputContext()).take(count).as_numpy_iterator())


def rows_of(augment, count=15):
    """(x in numbers of examples, label, partner, share) of each row."""
    for x, y, _ in batches(augment, count):
        yield from zip(x * 255, y['label'], y['partner'], y['share'])


def is_mixup(x, label, partner, share):
    return np.allclose(x, share * label + (1 - share) * partner, atol=1e-3)


def is_cutmix(x, label, partner, share):
    first, second = np.isclose(x, label, atol=1e-3)[..., 0], np.isclose(x, partner, atol=1e-3)[..., 0]
    if not (first | second).all():
        return False
    rows, columns = np.flatnonzero(second.any(axis=1)), np.flatnonzero(second.any(axis=0))
    is_rectangle = not len(rows) or second[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1].all()
    return is_rectangle and np.isclose(first.mean(), share, atol=1e-5)


# The mean of a rectangle of cutmix: of its side s, s - s ** 2 / 4 is in the image in the mean, and s ** 2 is uniform.
@pytest.mark.parametrize('augment, is_one, mean', [('mixup', is_mixup, 0.5), ('cutmix', is_cutmix, 1 - 0.32)])
def test_pixels_and_targets_have_the_same_share(augment, is_one, mean):
    rows = [row for row in rows_of(augment) if row[1] != row[2]]
    assert len(rows) > 280 and all(is_one(*row) for row in rows)
    shares = np.array([share for *_, share in rows])
    assert 0 <= shares.min() < 0.2 and 0.9 < shares.max() <= 1 and abs(shares.mean() - mean) < 0.06


def test_both_are_one_of_the_two_in_each_row():
    rows = [row for row in rows_of('cutmix,mixup') if row[1] != row[2] and 0.05 < row[3] < 0.95]
    cut = [is_cutmix(*row) for row in rows]
    assert all(a != b for a, b in zip(cut, (is_mixup(*row) for row in rows))) and 0.3 < np.mean(cut) < 0.95


def test_in_each_epoch_every_example_is_a_partner_once_and_rarely_of_itself():
    for epoch in range(3):
        stream = tf.range(epoch * 1000, (epoch + 1) * 1000, dtype=tf.int64)
        own, partners = (shuffled_rows(stream, 1000, 1, *kind).numpy() for kind in ((), (PARTNERS,)))
        assert sorted(partners) == list(range(1000)) and (own == partners).sum() < 8
    seen = [(label, partner) for _, label, partner, _ in rows_of('mixup', 9)]
    pairs = [dict(seen[i:i + COUNT]) for i in range(0, 180, COUNT)]
    assert all(sorted(pair.values()) == list(range(COUNT)) for pair in pairs) and pairs[0] != pairs[1]


@pytest.mark.parametrize('augment', ['mixup,cutmix', 'alternating_flip,erase,mixup'])
def test_slices_are_the_global_batch(augment):
    for i, whole in enumerate(batches(augment)):
        parts = [list(batches(augment, 10, tf.distribute.InputContext(2, pipeline, 4)))[2 * i:2 * i + 2]
                 for pipeline in range(2)]
        parts = [tf.nest.flatten(part) for pair in parts for part in pair]
        for array, *pieces in zip(tf.nest.flatten(whole), *parts, strict=True):
            np.testing.assert_array_equal(array, np.concatenate(pieces))


def test_partners_are_augmented_on_their_own():
    """Erased partners of images that are not erased, and the other way round."""
    kinds = set()
    for x, label, partner, share in rows_of('erase,mixup'):
        if 0.05 < share < 0.95 and label and partner and label != partner:
            seen = {name for name, value in (('first', (1 - share) * partner), ('partner', share * label))
                    if np.isclose(x, value, atol=1e-3).any()}
            kinds.add(tuple(sorted(seen)))
    assert {(), ('first',), ('partner',)} <= kinds


def test_an_evaluation_mixes_nothing():
    source, task = made('mixup')
    x, y, *_ = next(evaluation_slices(task.rows(source), task.batch, batch_size=COUNT)().as_numpy_iterator())
    np.testing.assert_array_equal(y, np.arange(COUNT))
    np.testing.assert_allclose(x[:, 0, 0, 0] * 255, y, atol=1e-4)


@pytest.mark.parametrize('smoothing', [0., 0.2])
def test_the_loss_is_that_of_mixed_targets_and_accuracy_that_of_the_larger_share(smoothing):
    rng = np.random.RandomState(0)
    label, partner, share = rng.randint(0, COUNT, 9), rng.randint(0, COUNT, 9), np.float32(rng.rand(9))
    logits, eye = np.float32(rng.randn(9, COUNT)), np.eye(COUNT)
    logits[:, label[0]] += 9
    targets = share[:, None] * eye[label] + (1 - share[:, None]) * eye[partner]
    expected = keras.losses.categorical_crossentropy(targets, logits, from_logits=True, label_smoothing=smoothing)
    np.testing.assert_allclose(mixed_cross_entropy(label, partner, share, logits, smoothing), expected, rtol=1e-5)
    _, task = made('mixup', label_smoothing=smoothing)
    y = {'label': tf.constant(label), 'partner': tf.constant(partner), 'share': tf.constant(share)}
    totals = task.training_totals(y, tf.constant(logits), tf.ones([9]))
    assert float(totals['loss'][0]) == pytest.approx(np.sum(expected), rel=1e-5)
    larger = np.where(share >= 0.5, label, partner)
    assert float(totals['accuracy'][0]) == (logits.argmax(axis=1) == larger).sum()


@pytest.mark.parametrize('a', [0.2, 0.5, 1.])
def test_beta_is_the_inverse_of_the_distribution_function(a):
    stats = pytest.importorskip('scipy.stats')
    noise = np.concatenate([np.arange(1000) / 1000, [2 ** -24, 1 - 2 ** -24]]).astype(np.float32)
    np.testing.assert_allclose(beta(tf.constant(noise), a), stats.beta.ppf(noise.astype(float), a, a), atol=2e-5)
    drawn = beta(Draws(0).uniform('a', (100_000,)), a).numpy()
    assert drawn.mean() == pytest.approx(0.5, abs=0.005) and 0 <= drawn.min() and drawn.max() <= 1
    assert drawn.var() == pytest.approx(1 / (4 * (2 * a + 1)), rel=0.01)
