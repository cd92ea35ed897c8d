"""Augmentations that replace parts of an image: by black, or by another training image."""

import numpy as np
import tensorflow as tf

from data.inputs.geometry import TRIES, first_fitting, place

ERASED, AREA, RATIO = 0.25, (0.02, 0.33), (0.3, 3.3)      # of erase: probability, share of the area, width by height
MIXUP, CUTMIX = 0.2, 1.                                   # both parameters of the Beta distribution of the share
ENTRIES = 1024                                            # of the table of a Beta distribution


def erase(images, draws):
    """A rectangle becomes black with probability ERASED: arXiv:1708.04896. Only the image: boxes and masks stay."""
    b, height, width, _ = images.shape
    noise = draws.uniform('erase', (b, 3 + 2 * TRIES))
    most = height - 1, width - 1
    h, w, fits = first_fitting(noise[:, 3:], (height, width), most, AREA, RATIO)
    top, left = place(noise[:, 1], height, h), place(noise[:, 2], width, w)
    erased = fits & (noise[:, 0] < ERASED)
    return tf.where(rectangle(images.shape, top, left, h, w) & erased[:, None, None, None], 0., images)


def rectangle(shape, top, left, height, width):
    """bool [b, H, W, 1], true inside; the four are float32 [b], in pixels."""
    rows, columns = tf.range(float(shape[1])), tf.range(float(shape[2]))
    down = (rows >= top[:, None]) & (rows < (top + height)[:, None])                 # [b, H]
    across = (columns >= left[:, None]) & (columns < (left + width)[:, None])        # [b, W]
    return (down[:, :, None] & across[:, None, :])[..., None]


def mix(names, x, partner, draws):
    """Images [b, H, W, C] and others [b, H, W, C] to mix them with -> (images, share [b] of the first).

    names: mixup, cutmix, or both: then each row takes one of the two at random.
    """
    noise = draws.uniform('mix', (x.shape[0], 4))
    ways = [{'mixup': mixup, 'cutmix': cutmix}[name](x, partner, noise[:, 1:]) for name in names]
    if len(ways) == 1:
        return ways[0]
    first = noise[:, 0] < 0.5
    images, shares = zip(*ways)
    return tf.raw_ops.Select(condition=first, x=images[0], y=images[1]), tf.where(first, *shares)


def mixup(x, partner, noise):
    """arXiv:1710.09412: share * x + (1 - share) * partner, share from Beta(MIXUP, MIXUP)."""
    share = beta(noise[:, 0], MIXUP)
    each = share[:, None, None, None]
    return each * x + (1. - each) * partner, share


def cutmix(x, partner, noise):
    """arXiv:1905.04899: a rectangle of x becomes the partner's; share: of the pixels that are still x's.

    The rectangle has the image's ratio and is cut at its edges, so its area is at most a share from Beta(CUTMIX,
    CUTMIX), which is uniform.
    """
    _, height, width, _ = x.shape
    side = tf.sqrt(1. - beta(noise[:, 0], CUTMIX))
    (top, h), (left, w) = (_span(u, size, side) for u, size in ((noise[:, 1], height), (noise[:, 2], width)))
    pasted = rectangle(x.shape, top, left, h, w)
    return tf.where(pasted, partner, x), 1. - h * w / (height * width)


def _span(noise, size, side):
    """A part `side` [b] of the pixels 0 .. size, its middle anywhere, cut at the ends -> (first, length) [b]."""
    length, middle = tf.floor(size * side), tf.floor(noise * size)
    first = middle - tf.floor(length / 2.)
    last = tf.minimum(first + length, float(size))
    first = tf.maximum(first, 0.)
    return first, last - first


def beta(noise, a):
    """noise [b] uniform in [0, 1) -> float32 [b] from Beta(a, a), by the inverse of its distribution function.

    The inverse is a table, so that a row takes one number: the usual ways reject some, and take an unknown count.
    """
    place = tf.minimum(noise, 1. - noise) * (2. * (ENTRIES - 1))
    entry = tf.minimum(tf.floor(place), ENTRIES - 2.)
    table, at = tf.constant(_table(a), tf.float32), tf.cast(entry, tf.int32)
    x = tf.gather(table, at) + (place - entry) * (tf.gather(table, at + 1) - tf.gather(table, at))
    return tf.where(noise < 0.5, x, 1. - x)


def _table(a):
    """float64 [ENTRIES]: x where the distribution function is 0 .. 1/2, in equal steps. For a of at most 1.

    In t = x ** a the density is (1 - t ** (1 / a)) ** (a - 1), up to a constant: without the pole that it has in x.
    """
    t = np.linspace(0., 0.5 ** a, 2 ** 16)
    density = (1. - t ** (1. / a)) ** (a - 1.)
    sums = np.concatenate([[0.], np.cumsum(density[1:] + density[:-1])])
    return np.interp(np.linspace(0., 1., ENTRIES), sums / sums[-1], t) ** (1. / a)
