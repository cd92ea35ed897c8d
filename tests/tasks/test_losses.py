"""Losses and metrics as sums: against one-hot formulas, and exact under any grouping."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from data.dataset import Image, Label, Number, Vector
from data.source import Tensors
from errors import UserError
from tasks.task import cross_entropy
from tests.opened import one_source, task_of

IMAGES = one_source(Tensors(image=np.zeros([3, 2, 2, 1], np.uint8), label=np.arange(3)),
                    image=Image((2, 2, 1)), label=Label(('a', 'b', 'c')))
VECTORS = one_source(Tensors(vector=np.eye(3, 2, dtype=np.float32), target=np.zeros(3, np.float32)),
                     vector=Vector(2), target=Number())
RANDOM = np.random.RandomState(0)
LOGITS, LABELS = np.float32(RANDOM.randn(9, 3) * 3), np.int32(RANDOM.randint(0, 3, 9))
WEIGHTS = np.float32([1, 1, 0, 1, 0, 1, 1, 1, 0])


@pytest.mark.parametrize('smoothing', [0., 0.1, 0.4])
def test_smoothed_cross_entropy_is_that_of_one_hot_labels(smoothing):
    expected = keras.losses.categorical_crossentropy(np.eye(3)[LABELS], LOGITS, from_logits=True,
                                                     label_smoothing=smoothing)
    np.testing.assert_allclose(cross_entropy(LABELS, LOGITS, smoothing), expected, rtol=1e-5)


def totals(task, rows):
    return {name: np.array(pair) for name, pair in task.training_totals(
        tf.constant(LABELS[rows]), tf.constant(LOGITS[rows]), tf.constant(WEIGHTS[rows])).items()}


def test_totals_add_up_over_any_grouping_and_ignore_padding():
    task = task_of('classification', IMAGES, options={'label_smoothing': 0.1})
    whole = totals(task, slice(None))
    parts = [totals(task, rows) for rows in (slice(0, 2), slice(2, 3), slice(3, 9))]
    for name, value in whole.items():
        np.testing.assert_allclose(sum(part[name] for part in parts), value, rtol=1e-6)
    real = WEIGHTS > 0
    assert whole['accuracy'][1] == real.sum()
    assert whole['accuracy'][0] == (LOGITS.argmax(1) == LABELS)[real].sum()


def test_results_divide_once():
    task = task_of('classification', IMAGES)
    assert task.results({'loss': (6., 4.), 'accuracy': (3., 4.), 'count': (4., 4.)}) == {
        'loss': 1.5, 'accuracy': 0.75, 'count': 4}
    assert task.results({'loss': (0., 0.), 'skipped': (3., 3.)}) == {'skipped': 1.}      # of nothing there is no mean


def test_regression_is_the_mean_square():
    task = task_of('regression', VECTORS)
    y, outputs = tf.constant([1., 2., 9.]), tf.constant([[0.], [4.], [0.]])
    assert [float(t) for t in task.loss(y, outputs, tf.constant([1., 1., 0.]))] == [5., 2.]
    assert task.sizes['outputs'] == 1


@pytest.mark.parametrize('name, dataset, message', [
    ('clasification', IMAGES, '`task` must be one of classification, .*Did you mean classification'),
    ('translation', IMAGES, r'`task` translation needs source \(text\), target \(text\). Received: dataset=made, which '
                            r'has image \(image\), label \(label\)'),
    ('regression', IMAGES, '`task` regression needs vector'),
    ('classification', VECTORS, r'`task` classification needs image \(image\), label \(label\). Received: .*vector'),
])
def test_a_dataset_without_the_fields_is_one_line(name, dataset, message):
    with pytest.raises(UserError, match=message):
        task_of(name, dataset)


def test_a_total_of_any_shape_is_a_list():
    task = task_of('classification', IMAGES)
    totals = {'loss': (np.float32(6.), np.float32(4.)), 'recall': (np.float32([1., 3.]), np.float32([2., 4.])),
              'nothing': (np.float32(0.), np.float32(0.)), 'count': (5., 5.)}
    assert task.results(totals) == {'loss': 1.5, 'recall': [0.5, 0.75], 'count': 5}
