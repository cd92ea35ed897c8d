"""TrivialAugment, arXiv:2103.10158, in its "wide" space: one operation per image, of random strength.

The operations and their strengths are those of torchvision's TrivialAugmentWide. Those that move pixels are one
transform per image, bilinear.
"""

import functools

import numpy as np
import tensorflow as tf

from data.inputs import colour
from data.inputs.geometry import affine

STRENGTHS = 31
LARGEST_SHEAR, LARGEST_MOVE, LARGEST_ANGLE, LARGEST_CHANGE = 0.99, 32., np.radians(135), 0.99      # pixels, radians
MOVING = ('identity', 'shear_x', 'shear_y', 'translate_x', 'translate_y', 'rotate')


def _of_strength(strength, numbers):
    """int32 [b] in 0 to STRENGTHS - 1 -> the number of each, [b]. numbers: one per strength.

    Tables, because the last bit of TensorFlow's cosine depends on how many numbers are computed at once.
    """
    return tf.gather(tf.constant(numbers), strength)


def _up_to(largest):
    return np.linspace(0., largest, STRENGTHS, dtype=np.float32)


def _changed(function):
    return lambda images, strength, sign: function(images, 1. + sign * _of_strength(strength, _up_to(LARGEST_CHANGE)))


# Functions of images [1, H, W, C], strength [1] and sign [1].
COLOURS = {
    'brightness': _changed(colour.brightness), 'color': _changed(colour.saturation),
    'contrast': _changed(colour.contrast), 'sharpness': _changed(colour.sharpness),
    'posterize': lambda images, strength, _: colour.posterize(
        images, _of_strength(strength, 8 - np.round(_up_to(6.)).astype(np.int32))),
    'solarize': lambda images, strength, _: colour.solarize(images, _of_strength(strength, _up_to(1.)[::-1])),
    'autocontrast': lambda images, *_: colour.autocontrast(images),
    'equalize': lambda images, *_: colour.equalize(images),
}
OPERATIONS = (*MOVING, *COLOURS)


def chosen(draws, b):
    """Each image's operation int32 [b], strength int32 [b] in 0 to STRENGTHS - 1, and sign float32 [b]."""
    noise = draws.uniform('trivial_augment', (b, 3))
    operation, strength = (tf.cast(noise[:, i] * float(count), tf.int32)
                           for i, count in enumerate((len(OPERATIONS), STRENGTHS)))
    return operation, strength, tf.where(noise[:, 2] < 0.5, -1., 1.)


def transform(shape, draws):
    return transform_of(shape, *chosen(draws, shape[0]))


def transform_of(shape, operation, strength, sign):
    """float32 [b, 8]; the identity for operations of colour. Shears fix the corner x = y = 0, rotations the centre."""
    b, height, width, _ = shape

    def amount(name, numbers, otherwise=0., sign=sign):
        return tf.where(operation == OPERATIONS.index(name), sign * _of_strength(strength, numbers), otherwise)
    shear_x, shear_y = (amount(f'shear_{axis}', _up_to(LARGEST_SHEAR)) for axis in 'xy')
    right, down = (amount(f'translate_{axis}', np.floor(_up_to(LARGEST_MOVE))) for axis in 'xy')
    angles = _up_to(LARGEST_ANGLE)
    cos, sin = amount('rotate', np.cos(angles), otherwise=1., sign=1.), amount('rotate', np.sin(angles))
    x, y = (width - 1) / 2, (height - 1) / 2
    # At most one of them is not the identity.
    return affine(b, cos, shear_x - sin, shear_x / 2. - right + x - cos * x + sin * y,
                  sin + shear_y, cos, shear_y / 2. - down + y - sin * x - cos * y)


def colours(images, draws):
    return colours_of(images, *chosen(draws, images.shape[0]))


def colours_of(images, operation, strength, sign):
    """float32 [b, H, W, C] in 0 to 1 -> the same; what is no operation of colour changes nothing.

    One image after another: all operations for all images, as vectors, take 3 times as long for 32 of 128x128.
    """
    def change(one):
        return tf.switch_case(one[1] - len(MOVING), {i: functools.partial(COLOURS[name], one[0][None], *one[2:])
                                                     for i, name in enumerate(COLOURS)}, lambda: one[0][None])[0]
    return tf.map_fn(change, (images, operation, strength[:, None], sign[:, None]),
                     fn_output_signature=tf.TensorSpec(images.shape[1:]))
