"""Augmentations that move pixels, each a projective transform per image; one vectorised operation moves all pixels.

A transform is a function (shape (b, H, W, C), Draws) -> float32 [b, 8] in TensorFlow's form: from the index (x, y) of
an output pixel to that of an input pixel, (a0 x + a1 y + a2, b0 x + b1 y + b2); the last two numbers are 0.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from data.dataset import Mask

SHIFT = 1 / 12               # of the side: 2 pixels of Fashion-MNIST's 28
CROP, TRANSLATE = 1 / 8, 1 / 16      # of the side: 4 and 2 pixels of CIFAR's 32
TRIES = 10                   # windows that are drawn at once; the first that fits in the image is taken
TABLE = 4096                 # ratios that a window may have
WINDOW, RATIO = (0.25, 1.), (3 / 4, 4 / 3)      # of resized_crop: share of the area, width by height


@dataclasses.dataclass(frozen=True)
class Move:
    """How images go through a transform. fill: what comes into view: black, the nearest edge pixel, or a reflection."""

    transform: Callable
    interpolation: str = 'NEAREST'
    fill: str = 'black'


def move_images(images, move, transforms):
    """float32 [b, H, W, C] and transforms [b, 8] -> float32 [b, H, W, C]."""
    size = images.shape[1:3]
    if move.fill == 'reflection':      # the operation's own repeats the edge pixel
        height, width = (_pixels(side, TRANSLATE) for side in size)
        images = tf.pad(images, [[0, 0], [height, height], [width, width], [0, 0]], 'REFLECT')
        transforms += tf.constant([0., 0., width, 0., 0., height, 0., 0.])
    return _project(images, size, transforms, move.interpolation, 'NEAREST' if move.fill == 'edge' else 'CONSTANT')


def move_mask(mask, transforms):
    """uint8 [b, H, W] -> uint8 [b, H, W]: the nearest pixel; void, what comes into view."""
    return _project(mask[..., None], mask.shape[1:3], transforms, 'NEAREST', 'CONSTANT', float(Mask.void))[..., 0]


def _project(images, size, transforms, interpolation, fill_mode, fill_value=0.):
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images, transforms=transforms, output_shape=tf.constant(list(size)), fill_value=fill_value,
        interpolation=interpolation, fill_mode=fill_mode)


def affine(b, a0=1., a1=0., a2=0., b0=0., b1=1., b2=0.):
    """float32 [b, 8] of six numbers or tensors [b]."""
    return tf.stack([tf.broadcast_to(tf.cast(t, tf.float32), [b]) for t in (a0, a1, a2, b0, b1, b2, 0., 0.)], axis=1)


def shift(shape, draws):
    """Moves by up to SHIFT of the side in each direction; what comes into view is black."""
    b, height, width, _ = shape
    noise = draws.uniform('augment', (b, 3))      # shared with `flip`, whose is the third
    down = tf.round((2 * noise[:, 0] - 1) * SHIFT * height)
    right = tf.round((2 * noise[:, 1] - 1) * SHIFT * width)
    return affine(b, a2=right, b2=down)


def flip(shape, draws):
    """Mirrors left and right with probability 1/2."""
    return _mirror(shape, draws.uniform('augment', (shape[0], 3))[:, 2] < 0.5)


def flip_shift(shape, draws):
    """Both: the mirror first, then the shift in mirrored coordinates."""
    flipped, shifted = tf.unstack(flip(shape, draws), axis=1), tf.unstack(shift(shape, draws), axis=1)
    flipped[2] += shifted[2]
    flipped[5] = shifted[5]
    return tf.stack(flipped, axis=1)


def alternating_flip(shape, draws):
    """Mirrors half of the images in the first epoch, the others in the next, and so on: arXiv:2404.00498, section 3.6.

    Two epochs then show each image both ways; with `flip`, half of the images are the same in both.
    """
    _, epoch = draws.which(shape[0])
    return _mirror(shape, (tf.cast(draws.bits_of_examples('alternating_flip', shape[0]), tf.int64) + epoch) % 2 == 1)


def vertical_flip(shape, draws):
    """Mirrors top and bottom with probability 1/2."""
    b, height, _, _ = shape
    mirrored = draws.uniform('vertical_flip', (b,)) < 0.5
    return affine(b, b1=tf.where(mirrored, -1., 1.), b2=tf.where(mirrored, height - 1., 0.))


def _mirror(shape, mirrored):
    b, _, width, _ = shape
    return affine(b, a0=tf.where(mirrored, -1., 1.), a2=tf.where(mirrored, width - 1., 0.))


def window(name, share):
    """A transform that moves by up to `share` of the side in each direction, all whole pixels equally likely."""
    def transform(shape, draws):
        noise = draws.uniform(name, (shape[0], 2))
        down, right = (tf.floor(noise[:, i] * (2. * far + 1.)) - far
                       for i, far in enumerate(_pixels(side, share) for side in shape[1:3]))
        return affine(shape[0], a2=right, b2=down)
    return transform


def _pixels(side, share):
    return max(1, round(side * share)) if side > 1 else 0


def resized_crop(shape, draws):
    """A window of WINDOW of the area and RATIO, enlarged to the whole: arXiv:1409.4842, section 6.

    As torchvision's RandomResizedCrop, but for the smallest area, 0.08 there; and the window's edge pixels are blended
    with their neighbours outside.
    """
    b, height, width, _ = shape
    noise = draws.uniform('resized_crop', (b, 2 + 2 * TRIES))
    h, w, fits = first_fitting(noise[:, 2:], (height, width), (height, width), WINDOW, RATIO)
    # Else the largest window in the middle whose ratio is allowed.
    h = tf.where(fits, h, min(height, round(width / RATIO[0])))
    w = tf.where(fits, w, min(width, round(height * RATIO[1])))
    top, left = (tf.where(fits, place(u, side, part), (side - part) / 2.)
                 for u, side, part in ((noise[:, 0], height, h), (noise[:, 1], width, w)))
    across, down = w / width, h / height
    return affine(b, a0=across, a2=left + 0.5 * across - 0.5, b1=down, b2=top + 0.5 * down - 0.5)


def first_fitting(noise, size, most, shares, ratios):
    """The first of TRIES windows that fits: noise [b, 2 * TRIES] -> heights [b], widths [b], whether any fits bool [b].

    Args:
        size: (height, width) of the image. most: of a window, in pixels.
        shares: (least, most) of the image's area. ratios: (least, most) of width by height, uniform in its logarithm.
    """
    area = (shares[0] + noise[:, :TRIES] * (shares[1] - shares[0])) * (size[0] * size[1])            # [b, TRIES]
    # A table, because the last bit of TensorFlow's exponential depends on how many numbers are computed at once.
    table = np.geomspace(*ratios, TABLE, dtype=np.float32)
    ratio = tf.gather(table, tf.cast(noise[:, TRIES:] * float(TABLE), tf.int32))
    heights, widths = tf.round(tf.sqrt(area / ratio)), tf.round(tf.sqrt(area * ratio))
    fits = (0. < heights) & (heights <= most[0]) & (0. < widths) & (widths <= most[1])
    first = tf.argmax(tf.cast(fits, tf.int32), axis=1)
    height, width = (tf.gather(t, first, axis=1, batch_dims=1) for t in (heights, widths))
    return height, width, tf.reduce_any(fits, axis=1)


def place(noise, side, part):
    """noise [b] -> float32 [b], where a part [b] of a side begins: all whole pixels equally likely."""
    return tf.floor(noise * (side - part + 1.))


MOVES = {
    'resized_crop': Move(resized_crop, 'BILINEAR', 'edge'), 'crop': Move(window('crop', CROP)),
    'translate': Move(window('translate', TRANSLATE), fill='reflection'), 'shift': Move(shift), 'flip': Move(flip),
    'flip_shift': Move(flip_shift), 'alternating_flip': Move(alternating_flip), 'vertical_flip': Move(vertical_flip),
}
