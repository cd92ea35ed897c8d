"""The step-indexed pipeline's promises, each on plain arrays in which an example's content names the example."""

import numpy as np
import pytest
import tensorflow as tf

from data.dataset import Image, Label
from data.pipeline import evaluation_slices, evaluation_steps, shuffled_rows, training_slices
from data.source import Subset, Tensors, split_indices
from draws import Draws
from errors import UserError
from tests.opened import one_source, opened, task_of


def make_source(count):
    """Image i is random but for its first pixels; its label is i."""
    images = np.random.RandomState(0).randint(1, 256, (count, 6, 6, 1)).astype(np.uint8)
    return Tensors(image=images, label=np.arange(count, dtype=np.int32))


def make_rows(count, augment='none', training=True):
    """(rows, batch function) of those images."""
    dataset = one_source(make_source(count), image=Image((6, 6, 1)), label=Label(('even', 'odd')))
    task = task_of('classification', dataset, augment=augment)
    return task.rows(dataset.train, training), task.batch


def epoch_of(number, count, seed):
    stream = tf.range(number * count, (number + 1) * count, dtype=tf.int64)
    return shuffled_rows(stream, count, seed).numpy()


def global_batches(make_dataset, replicas, pipelines, count):
    """The first global batches (x, y, weights): slices of all pipelines in replica order, concatenated."""
    local = replicas // pipelines
    contexts = [tf.distribute.InputContext(pipelines, pipeline, replicas) for pipeline in range(pipelines)]
    parts = [list(make_dataset(context).take(count * local).as_numpy_iterator()) for context in contexts]
    return [tuple(np.concatenate(arrays) for arrays in
                  zip(*[piece for part in parts for piece in part[step * local:(step + 1) * local]]))
            for step in range(count)]


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others):
        for array, expected in zip(batch, other):
            np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize('count', [1, 2, 3, 10, 64, 1797])
def test_each_epoch_is_a_permutation(count):
    for seed in (0, 1, 2 ** 31 - 1):
        for number in (0, 1, 7, 1000):
            assert sorted(epoch_of(number, count, seed)) == list(range(count))


def test_epochs_and_seeds_differ():
    orders = [tuple(epoch_of(number, 1797, seed)) for number in range(4) for seed in range(4)]
    assert len(set(orders)) == len(orders)
    assert all(order != tuple(range(1797)) for order in orders)


def test_an_epoch_may_end_inside_a_batch():
    dataset = training_slices(*make_rows(10), batch_size=4, seed=0)()
    labels = np.concatenate([y for _, y, _ in dataset.take(5).as_numpy_iterator()])
    assert sorted(labels[:10]) == sorted(labels[10:]) == list(range(10))


@pytest.mark.parametrize('step', [1, 5, 12])
@pytest.mark.parametrize('replicas, pipelines', [(1, 1), (4, 2)])
def test_a_start_at_any_step_gives_that_steps_batch(step, replicas, pipelines):
    rows, options = make_rows(50, 'flip_shift'), dict(batch_size=8, seed=3)
    whole = global_batches(training_slices(*rows, **options), replicas, pipelines, step + 3)
    resumed = global_batches(training_slices(*rows, **options, start_step=step), replicas, pipelines, 3)
    assert_same(resumed, whole[step:])


@pytest.mark.parametrize('replicas, pipelines', [(2, 1), (2, 2), (4, 1), (4, 2)])
@pytest.mark.parametrize('augment', ['none', 'flip_shift'])
def test_slices_of_all_replicas_are_the_global_batch(replicas, pipelines, augment):
    dataset_fn = training_slices(*make_rows(50, augment), batch_size=8, seed=3)
    assert_same(global_batches(dataset_fn, replicas, pipelines, 8), global_batches(dataset_fn, 1, 1, 8))


def test_text_slices_are_the_global_batch_too():
    dataset, task = opened('number_words', 'translation')
    dataset_fn = training_slices(task.rows(dataset.train, True), task.batch, batch_size=8, seed=0)
    one, two = dataset_fn(tf.distribute.InputContext()), dataset_fn(tf.distribute.InputContext(1, 0, 2))
    (x, y, _), slices = next(one.as_numpy_iterator()), list(two.take(2).as_numpy_iterator())
    np.testing.assert_array_equal(x['source'], np.concatenate([part[0]['source'] for part in slices]))
    np.testing.assert_array_equal(y, np.concatenate([part[1] for part in slices]))


@pytest.mark.parametrize('count, batch_size', [(1, 4), (7, 8), (8, 8), (9, 8), (50, 4), (50, 12), (50, 100)])
@pytest.mark.parametrize('replicas, pipelines', [(1, 1), (2, 1), (4, 2)])
def test_evaluation_counts_every_example_once(count, batch_size, replicas, pipelines):
    rows, batch = make_rows(count)
    steps = evaluation_steps(rows, batch_size)
    batches = global_batches(evaluation_slices(rows, batch, batch_size=batch_size), replicas, pipelines, steps)
    assert all(len(y) == batch_size for _, y, _, _ in batches)
    labels, weights, real = (np.concatenate(parts) for parts in list(zip(*batches))[1:])
    assert set(weights) <= {0., 1.} and labels[weights == 1].tolist() == list(range(count))
    np.testing.assert_array_equal(real, weights)


@pytest.mark.parametrize('replicas', [1, 2])
def test_a_row_of_weight_0_is_counted_and_its_draws_do_not_depend_on_the_batch_size(replicas):
    rows, _ = make_rows(7)

    def unlabelled(rows, draws, training):
        return draws.uniform('x', (rows['y'].shape[0],)), rows['y'], tf.zeros_like(rows['x'][:, 0, 0, 0])
    drawn = []
    for batch_size in (4, 8):
        slices = evaluation_slices(rows, unlabelled, batch_size=batch_size)
        batches = global_batches(slices, replicas, 1, evaluation_steps(rows, batch_size))
        x, _, weights, real = (np.concatenate(parts) for parts in zip(*batches))
        assert (weights.sum(), real.sum()) == (0, 7)
        drawn.append(x[:7])
    np.testing.assert_array_equal(*drawn)
    np.testing.assert_array_equal(drawn[0], Draws(0).uniform('x', (7,)))


def test_evaluation_ends():
    context = tf.distribute.InputContext(2, 1, 4)
    dataset = evaluation_slices(*make_rows(50), batch_size=8)(context)
    assert sum(1 for _ in dataset) == 2 * evaluation_steps(make_source(50), 8)


@pytest.mark.parametrize('slices', [lambda *args: training_slices(*args, batch_size=10, seed=0),
                                    lambda *args: evaluation_slices(*args, batch_size=10)])
def test_a_batch_that_does_not_divide_names_both_numbers(slices):
    with pytest.raises(UserError, match='batch_size=10, replicas=4'):
        slices(*make_rows(50))(tf.distribute.InputContext(1, 0, 4))


def test_augmentation_needs_a_known_name():
    with pytest.raises(UserError, match='`augment` must be one of .*flip_shift.* Did you mean shift'):
        make_rows(5, augment='shft')


def test_element_spec_is_static():
    for slices in (training_slices(*make_rows(5), batch_size=4, seed=0),
                   evaluation_slices(*make_rows(5), batch_size=4)):
        x, y, weights, *_ = slices().element_spec
        assert (x.shape, y.shape, weights.shape) == ((4, 6, 6, 1), (4,), (4,))


def test_sources_and_splits():
    train, validation, test = split_indices(100, 10, 20)
    assert sorted([*train, *validation, *test]) == list(range(100)) and (len(validation), len(test)) == (10, 20)
    subset = Subset(make_source(100), validation)
    assert subset.gather(tf.constant([3, 0], tf.int64))['label'].numpy().tolist() == [validation[3], validation[0]]
    assert len({make_source(100).fingerprint, make_source(99).fingerprint, subset.fingerprint}) == 3
    assert list(subset.gather(tf.constant([3], tf.int64), ['label'])) == ['label']
    with pytest.raises(ValueError, match='`arrays` must have equal lengths'):
        Tensors(a=np.zeros(3), b=np.zeros(4))
