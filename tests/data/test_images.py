"""Augmentation against numpy; resizing and channels, the same in memory, from files and as served."""

import numpy as np
import pytest
import tensorflow as tf

from data.dataset import Image, Label
from data.inputs.augment import SHIFT, augment, flip, flip_shift, shift
from data.inputs.images import decode_images, fit, match_channels
from data.source import Tensors
from draws import Draws
from tests.opened import one_source, task_of

IMAGES = np.random.RandomState(0).randint(1, 256, (64, 24, 36, 3)).astype(np.float32)


def noise_of(seed, step, batch_size):
    return Draws(seed, step).uniform('augment', (batch_size, 3)).numpy()


def augmented(transform, step=5):
    return augment(tf.constant(IMAGES), transform, Draws(7, step))[0].numpy()


def numpy_shift(image, down, right):
    """out[y, x] = image[y + down, x + right]; black where that lies outside."""
    padded = np.pad(image, ((24, 24), (36, 36), (0, 0)))
    return padded[24 + down:48 + down, 36 + right:72 + right]


def offsets(noise):
    return (np.round((2 * noise[:, i] - 1) * np.float32(SHIFT * side)).astype(int) for i, side in ((0, 24), (1, 36)))


def test_flip_is_a_mirror_of_about_half():
    mirrored = noise_of(7, 5, 64)[:, 2] < 0.5
    np.testing.assert_array_equal(augmented(flip), np.where(mirrored[:, None, None, None], IMAGES[:, :, ::-1], IMAGES))
    assert 16 < mirrored.sum() < 48


def test_shift_moves_pixels():
    down, right = offsets(noise_of(7, 5, 64))
    expected = [numpy_shift(image, *by) for image, *by in zip(IMAGES, down, right)]
    np.testing.assert_array_equal(augmented(shift), expected)
    assert (down.min(), down.max(), right.min(), right.max()) == (-2, 2, -3, 3)


def test_flip_shift_does_both():
    noise = noise_of(7, 5, 64)
    # The shift's columns are those of the mirrored image.
    images = [image[:, ::-1] if mirrored else image for image, mirrored in zip(IMAGES, noise[:, 2] < 0.5)]
    down, right = offsets(noise)
    signs = np.where(noise[:, 2] < 0.5, -1, 1)
    expected = [numpy_shift(image, d, s * r) for image, d, r, s in zip(images, down, right, signs)]
    np.testing.assert_array_equal(augmented(flip_shift), expected)


def test_steps_differ():
    assert (augmented(flip_shift, 5) != augmented(flip_shift, 6)).any()


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('given', [1, 2, 3, 4])
def test_static_and_served_channels_agree(channels, given):
    images = tf.constant(np.random.RandomState(1).rand(2, 5, 7, given).astype(np.float32) * 255)
    served = tf.function(lambda x: fit(x, (6, 6, channels)), input_signature=[tf.TensorSpec([None] * 4, tf.float32)])
    expected = fit(images, (6, 6, channels))
    assert expected.shape == (2, 6, 6, channels)
    np.testing.assert_allclose(served(images), expected, atol=1e-3)
    if given < 3:
        np.testing.assert_array_equal(match_channels(images, channels), images[..., :1])    # grey stays exactly grey


@pytest.mark.parametrize('size', [(8, 8), (64, 64), (9, 30)])
def test_enlarging_is_the_same_whether_the_size_is_static(size):
    images = tf.random.stateless_uniform([4, 8, 8, 1], seed=[0, 0]) * 255
    served = tf.function(lambda x: fit(x, (*size, 1)), input_signature=[tf.TensorSpec([None] * 4, tf.float32)])
    np.testing.assert_allclose(served(images), fit(images, (*size, 1)), atol=1e-3)


def test_shrinking_averages():
    checkers = np.indices((64, 64)).sum(axis=0) % 2 * 255.
    small = fit(tf.constant(checkers[None, :, :, None], tf.float32), (8, 8, 1)).numpy()
    np.testing.assert_allclose(small, 127.5, atol=2)


def test_inputs_are_in_0_to_1():
    white = Tensors(image=np.full([2, 4, 4, 1], 255, np.uint8), label=np.array([0, 1]))
    dataset = one_source(white, image=Image((4, 4, 1)), label=Label(('a', 'b')))
    task = task_of('classification', dataset, image_size=8, channels=3)
    x, y, weights = task.batch(task.rows(white).gather(tf.range(2, dtype=tf.int64)), Draws(0))
    np.testing.assert_allclose(x, np.ones((2, 8, 8, 3)), atol=1e-6)
    assert (y.dtype, weights.dtype, task.sizes) == (tf.int32, tf.float32, {'input_shape': (8, 8, 3), 'outputs': 2})


def test_decoded_files_and_arrays_give_the_same_input():
    photo = np.random.RandomState(0).randint(0, 256, (20, 30, 3)).astype(np.uint8)
    decoded = tf.function(decode_images, reduce_retracing=True)(tf.stack([tf.io.encode_png(photo)] * 2), (16, 16, 3))
    np.testing.assert_allclose(decoded[1], fit(photo[None], (16, 16, 3))[0], atol=1e-3)
