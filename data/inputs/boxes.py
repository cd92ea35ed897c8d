"""Boxes that move with the pixels of their images; see data.dataset.Boxes for what a box is."""

import tensorflow as tf

from data.dataset import Boxes

LEAST_LEFT = 0.25      # of a box's area: less of it inside the image, and the box is removed


def padding_last(boxes, is_there):
    """float32 [B, M, 6] and bool [B, M] -> float32 [B, M, 6], PADDING, at the end, for those that are not there."""
    boxes = tf.where(is_there[..., None], boxes, tf.constant(Boxes.PADDING))
    return tf.gather(boxes, tf.argsort(tf.cast(~is_there, tf.int32), axis=1, stable=True), axis=1, batch_dims=1)


def move_boxes(boxes, transforms, height, width):
    """float32 [B, M, 6] in an image whose pixels move by transforms [B, 8] -> (boxes [B, M, 6], share [B, M]).

    A moved box is the extent of its four moved corners, cut at the edges of the image; share: of its area that was not
    cut off. The sizes of image and output are the same, height and width.
    """
    x0, y0, x1, y1, *rest = tf.unstack(boxes, axis=2)                                   # [B, M] each
    x, y = _moved_points(tf.stack([x0, x1, x0, x1], axis=2), tf.stack([y0, y0, y1, y1], axis=2), transforms)
    x0, y0, x1, y1 = (extreme(t, axis=2) for extreme in (tf.reduce_min, tf.reduce_max) for t in (x, y))
    before = (x1 - x0) * (y1 - y0)
    x0, x1 = (tf.clip_by_value(t, 0., float(width)) for t in (x0, x1))
    y0, y1 = (tf.clip_by_value(t, 0., float(height)) for t in (y0, y1))
    share = tf.math.divide_no_nan((x1 - x0) * (y1 - y0), before)
    return tf.stack([x0, y0, x1, y1, *rest], axis=2), share


def remove_lost(boxes, share):
    """float32 [B, M, 6] and the share [B, M] left of each -> boxes without those of which less than LEAST_LEFT is."""
    return padding_last(boxes, (boxes[..., 4] >= 0.) & (share >= LEAST_LEFT))


def _moved_points(x, y, transforms):
    """Edge coordinates x and y [B, M, 4] -> where the transforms [B, 8], without perspective, take them."""
    # Transforms lead from an output pixel's index to an input pixel's, whose centres lie half a pixel further.
    a0, a1, a2, b0, b1, b2, *_ = (column[:, None, None] for column in tf.unstack(transforms, axis=1))
    u, v = x - 0.5 - a2, y - 0.5 - b2
    area = a0 * b1 - a1 * b0
    return (b1 * u - a1 * v) / area + 0.5, (a0 * v - b0 * u) / area + 0.5
