"""Random transforms of a batch of training images.

A transform maps (images' shape [b, H, W, C], noise [b, 3] uniform in [0, 1)) to a projective transform [b, 8] of
TensorFlow; one vectorised op then moves all pixels.
"""

import tensorflow as tf

SHIFT = 1 / 12   # of the side: 2 pixels of Fashion-MNIST's 28


def _identity(b):
    return tf.tile(tf.constant([[1., 0., 0., 0., 1., 0., 0., 0.]]), [b, 1])


def shift(shape, noise):
    """Moves by up to SHIFT of the side in each direction; what comes into view is black."""
    b, height, width, _ = shape
    down = tf.round((2 * noise[:, 0] - 1) * SHIFT * height)
    right = tf.round((2 * noise[:, 1] - 1) * SHIFT * width)
    columns = tf.unstack(_identity(b), axis=1)
    columns[2], columns[5] = right, down
    return tf.stack(columns, axis=1)


def flip(shape, noise):
    """Mirrors left and right with probability 1/2."""
    b, _, width, _ = shape
    mirrored = noise[:, 2] < 0.5
    columns = tf.unstack(_identity(b), axis=1)
    columns[0] = tf.where(mirrored, -1., 1.)
    columns[2] = tf.where(mirrored, width - 1., 0.)
    return tf.stack(columns, axis=1)


def flip_shift(shape, noise):
    """Both: the mirror first, then the shift in mirrored coordinates."""
    flipped, shifted = tf.unstack(flip(shape, noise), axis=1), tf.unstack(shift(shape, noise), axis=1)
    flipped[2] += shifted[2]
    flipped[5] = shifted[5]
    return tf.stack(flipped, axis=1)


AUGMENTATIONS = {'none': None, 'shift': shift, 'flip': flip, 'flip_shift': flip_shift}


def augment(images, transform, draws):
    """images [b, H, W, C] -> (images, moved [b, 8]): the projective transform that each image went through.

    Boxes and masks that belong to an image move by the same `moved`. draws: a draws.Draws of these rows.
    """
    b, height, width, _ = images.shape
    moved = transform(images.shape, draws.uniform('augment', (b, 3)))
    images = tf.raw_ops.ImageProjectiveTransformV3(
        images=images, transforms=moved, output_shape=tf.constant([height, width]),
        fill_value=0., interpolation='NEAREST', fill_mode='CONSTANT')
    return images, moved
