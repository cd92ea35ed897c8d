"""Augmentations of colour: functions of float32 [b, H, W, C] in 0 to 1 and one number per image, as torchvision's.

Those with a factor [b] change nothing where it is 1.
"""

import tensorflow as tf

GREY = [0.2989, 0.587, 0.114]       # of red, green and blue, as tf.image.rgb_to_grayscale has them
JITTER = 0.4                        # of color_jitter: factors lie in 1 - JITTER to 1 + JITTER


def _each(numbers):
    return numbers[:, None, None, None]


def blend(images, base, factors):
    """factor * image + (1 - factor) * base, cut to 0 to 1."""
    return tf.clip_by_value(_each(factors) * images + _each(1. - factors) * base, 0., 1.)


def grey(images):
    """[b, H, W, C] -> [b, H, W, 1]."""
    if images.shape[3] != 3:
        return images[..., :1]
    return sum(share * images[..., i:i + 1] for i, share in enumerate(GREY))


def mean_grey(images):
    """[b, H, W, C] -> [b, 1, 1, 1]."""
    return tf.reduce_mean(grey(images), axis=[1, 2, 3], keepdims=True)


def smooth(images):
    """Each pixel becomes a mean of its neighbourhood, where it counts 5 of 13; those at the edge stay."""
    _, height, width, _ = images.shape
    if min(height, width) < 3:
        return images
    rows = images[:, :-2] + images[:, 1:-1] + images[:, 2:]
    around = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    inner = (around + 4. * images[:, 1:-1, 1:-1]) / 13.
    middle = tf.concat([images[:, 1:-1, :1], inner, images[:, 1:-1, -1:]], axis=2)
    return tf.concat([images[:, :1], middle, images[:, -1:]], axis=1)


def brightness(images, factors):
    return blend(images, 0., factors)


def contrast(images, factors):
    return blend(images, mean_grey(images), factors)


def saturation(images, factors):
    return blend(images, grey(images), factors)


def sharpness(images, factors):
    return blend(images, smooth(images), factors)


def to_bytes(images):
    """int32 [b, H, W, C] in 0 to 255."""
    return tf.cast(tf.round(images * 255.), tf.int32)


def posterize(images, bits):
    """Keeps the first `bits` (int32 [b], 0 to 8) of a pixel's eight."""
    dropped = _each(8 - bits)
    values = tf.bitwise.left_shift(tf.bitwise.right_shift(to_bytes(images), dropped), dropped)
    return tf.cast(values, tf.float32) / 255.


def solarize(images, thresholds):
    """Inverts what is at least as bright as the threshold [b]."""
    return tf.where(images >= _each(thresholds), 1. - images, images)


def autocontrast(images):
    """Stretches each channel of each image to 0 to 1; one of a single value stays."""
    low, high = (extreme(images, axis=[1, 2], keepdims=True) for extreme in (tf.reduce_min, tf.reduce_max))
    flat = low == high
    scale = 1. / tf.where(flat, 1., high - low)
    return tf.clip_by_value((images - tf.where(flat, 0., low)) * scale, 0., 1.)


def equalize(images):
    """Makes the values of each channel of each image about equally frequent, as PIL does."""
    b, height, width, channels = images.shape
    values = to_bytes(images)
    first = 256 * tf.reshape(tf.range(b * channels), [b, 1, 1, channels])        # of a channel's histogram among all
    counts = tf.math.unsorted_segment_sum(tf.ones_like(values), values + first, 256 * b * channels)
    counts = tf.reshape(counts, [b, channels, 256])
    brightest = tf.transpose(tf.reduce_max(values, axis=[1, 2])[..., None], [0, 1, 2])              # [b, C, 1]
    last = tf.gather(counts, brightest, axis=2, batch_dims=2)                                       # [b, C, 1]
    step = (height * width - last) // 255
    divisor = tf.maximum(step, 1)
    below = tf.cumsum(counts, axis=2, exclusive=True)
    table = tf.minimum((below + step // 2) // divisor, 255)
    # The first entry is 0 in any case, since nothing is below.
    table = tf.where(step > 0, tf.concat([tf.zeros_like(table[..., :1]), table[..., 1:]], axis=2), tf.range(256))
    return tf.cast(tf.gather(tf.reshape(table, [-1]), values + first), tf.float32) / 255.


def color_jitter(images, draws):
    """Brightness, contrast and saturation, in this order, by factors of 1 - JITTER to 1 + JITTER; the hue stays."""
    factors = 1. + JITTER * (2. * draws.uniform('color_jitter', (images.shape[0], 3)) - 1.)
    for i, change in enumerate((brightness, contrast, saturation)):
        images = change(images, factors[:, i])
    return images
