"""Masks: to the model's size and back, what is counted, and what is served."""

import numpy as np
import pytest
import tensorflow as tf

import models
from data.dataset import Image, Mask
from data.source import Tensors
from tasks.scores.segmentation import confusion_matrix, segmentation_scores
from tests.opened import one_source, task_of
from tests.tasks.cases import case, masks, png

NAMES = ('a', 'b', 'c')


def of_files(sizes, size, largest):
    random = np.random.RandomState(1)
    images = [random.randint(0, 256, (*one, 3)).astype(np.uint8) for one in sizes]
    truth = [masks(*one) for one in sizes]
    source = Tensors(image=np.array([png(image) for image in images], object),
                     mask=np.array([png(mask[..., None]) for mask in truth], object))
    dataset = one_source(source, image=Image((0, 0, 3)), mask=Mask(NAMES, (0, 0), largest))
    return source, task_of('segmentation', dataset, image_size=size), images, truth


def test_the_confusion_is_counted_at_the_size_of_the_masks_by_the_served_classes():
    """What is evaluated in batches, static, equals what a user gets for one image after another."""
    sizes = [(20, 30), (50, 41), (33, 64), (64, 64)]
    source, task, images, truth = of_files(sizes, 32, (64, 64))
    model = models.build('unet', task.sizes, width=8)
    rows = task.rows(source)
    x, y, weights = task.batch(rows.gather(tf.range(4, dtype=tf.int64)), None)
    totals = task.evaluation_totals(model, x, y, weights, tf.ones([4]))
    values = task.results({name: (np.asarray(a, np.float64), np.asarray(b)) for name, (a, b) in totals.items()})
    served = task.serving(model)['encoded'][0](tf.constant([png(image) for image in images]))['mask']
    answers = [tf.io.decode_png(mask).numpy()[..., 0] for mask in served]
    assert [answer.shape for answer in answers] == sizes
    matrix = sum(confusion_matrix(mask, answer, 3) for mask, answer in zip(truth, answers))
    expected = segmentation_scores(matrix, NAMES)
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=2e-3)     # of pixels at near ties


def test_counts_beyond_float32_are_exact():
    """2 parts of a count are summed, each of which float32 holds."""
    _, task, _ = case('masks')
    counts = np.array([[16777217., 3., 0.], [5., 40000001., 0.], [0., 0., 0.]])
    high = np.floor(counts / 4096)
    values = task.results({'confusion': (np.stack([high, counts - 4096 * high]), np.zeros(()))})
    assert values['pixel_accuracy'] == (16777217 + 40000001) / counts.sum()


@pytest.mark.parametrize('height, width', [(20, 30), (64, 10), (1, 1), (3, 500), (200, 100)])
def test_a_mask_is_resized_to_its_own_values_and_lies_where_its_image_does(height, width):
    source, task, _, truth = of_files([(height, width)], 64, (height, width))
    rows = task.prepare(source.gather(tf.constant([0], tf.int64)))
    mask, used = rows['mask'][0].numpy(), task.image.used(tf.constant([[height, width]]))
    rows_used, columns_used = used.numpy()[0]
    assert set(np.unique(mask[:rows_used, :columns_used])) <= set(np.unique(truth[0]))
    assert np.all(mask[rows_used:] == Mask.void) and np.all(mask[:, columns_used:] == Mask.void)
    row = ((np.arange(rows_used) + 0.5) * height / rows_used).astype(int)
    column = ((np.arange(columns_used) + 0.5) * width / columns_used).astype(int)
    nearest = truth[0][np.minimum(row, height - 1)[:, None], np.minimum(column, width - 1)]
    assert np.mean(mask[:rows_used, :columns_used] == nearest) > 0.99      # halves may be rounded to either side


def test_void_pixels_have_no_weight_in_the_loss():
    _, task, model = case('masks')
    x = tf.random.stateless_uniform([2, 64, 64, 1], seed=[0, 1])
    mask = np.zeros((2, 64, 64), np.uint8)
    mask[:, :16] = Mask.void
    outputs = model(x)
    loss, weight = task.loss({'mask': tf.constant(mask)}, outputs, tf.ones([2]))
    below, _ = task.loss({'mask': tf.constant(mask[:, 16:])}, outputs[:, 16:], tf.ones([2]))
    assert weight == 2 * 48 * 64
    np.testing.assert_allclose(loss, below, rtol=1e-6)
    nothing = {'mask': tf.fill([2, 64, 64], tf.constant(Mask.void, tf.uint8))}
    assert [float(value) for value in task.loss(nothing, outputs, tf.ones([2]))] == [0., 0.]


def test_the_classes_of_an_image_are_those_of_its_resized_logits():
    """Bilinear, as tf.image.resize has it, and the largest afterwards."""
    _, task, model = case('masks')
    images = np.random.RandomState(0).randint(0, 256, (2, 96, 32, 1)).astype(np.uint8)
    served = task.serving(model)['serving_default'][0](tf.constant(images))['classes'].numpy()
    assert served.shape == (2, 96, 32)
    pixels, size = task.image(tf.constant(images))
    logits = model(task.image.pixels(pixels))[:, :, :21]                    # the other columns are empty
    assert task.image.used(size)[0].numpy().tolist() == [64, 21]
    expected = np.argmax(tf.image.resize(logits, (96, 32)), axis=-1)
    assert np.mean(served == expected) > 0.999
