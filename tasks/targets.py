"""What a detector's map of cells should be, how far it is from that, and the boxes that are read from it.

arXiv:1904.07850 (CenterNet) for the centres; arXiv:1909.00700 (TTFNet), sections 3.2 and 3.3, for the elliptic peaks,
and for learning a box at all cells of its middle and not only at one; arXiv:2006.04388 for the loss of the peaks.
"""

import tensorflow as tf

ALPHA = 0.54            # share of a box that its peak covers
FAR = 1e9


def of_boxes(boxes, height, width, classes, stride):
    """Boxes [B, M, 6] in pixels, see data.dataset.Boxes -> what the map of height x width cells should be.

    Returns:
        heat: float32 [B, height, width, classes], 1 at the cell of each object's centre, less around it.
        owner: int32 [B, height, width], the object whose box a cell learns: of several, the smallest.
        share: float32 [B, height, width], a cell's part of what its object counts; the parts of an object add up to 1,
            as long as no cell of it has another owner.
        ignored: bool [B, height, width], whether the middle of a cell is in a box that is no target.

    stride: pixels per cell, here and below.
    """
    x0, y0, x1, y1, number, is_ignored = tf.unstack(boxes, axis=2)                           # [B, M] each
    is_object = (number >= 0) & (is_ignored < 0.5)
    rows = _peak(y0, y1, height, stride)                                                             # [B, M, height]
    columns = _peak(x0, x1, width, stride)
    peaks = rows[..., None] * columns[..., None, :]                                          # [B, M, height, width]
    peaks = tf.where(is_object[..., None, None], peaks, 0.)
    one_hot = tf.one_hot(tf.cast(number, tf.int32), classes)                                 # [B, M, classes]
    heat = tf.stack([tf.reduce_max(peaks * one_hot[:, :, None, None, k], axis=1) for k in range(classes)], axis=-1)
    area = tf.where(is_object, (x1 - x0) * (y1 - y0), FAR)
    claims = tf.where(peaks > 0., area[..., None, None], FAR)
    owner = tf.argmin(claims, axis=1, output_type=tf.int32)                                  # [B, height, width]
    parts = tf.math.divide_no_nan(peaks, tf.reduce_sum(peaks, axis=[2, 3], keepdims=True))
    share = tf.reduce_sum(parts * tf.one_hot(owner, boxes.shape[1], axis=1), axis=1)
    ignored = _within(boxes, (number >= 0) & (is_ignored > 0.5), height, width, stride)
    return heat, owner, share, ignored


def _peak(low, high, cells, stride):
    """Edges [B, M] in pixels -> float32 [B, M, cells]: 1 at the cell of the middle, a Gaussian to both sides."""
    middle = tf.clip_by_value(tf.floor((low + high) / 2 / stride), 0., cells - 1.)
    radius = tf.floor(ALPHA / 2 * (high - low) / stride)
    sigma = (2 * radius + 1) / 6
    distance = tf.range(cells, dtype=tf.float32) - middle[..., None]
    peak = tf.exp(-tf.square(distance) / (2 * tf.square(sigma[..., None])))
    return tf.where(tf.abs(distance) <= radius[..., None], peak, 0.)


def _within(boxes, chosen, height, width, stride):
    x0, y0, x1, y1, *_ = tf.unstack(tf.where(chosen[..., None], boxes, -1.), axis=2)
    y, x = _middles(height, stride), _middles(width, stride)
    inside = (((y >= y0[..., None]) & (y < y1[..., None]))[..., None]
              & ((x >= x0[..., None]) & (x < x1[..., None]))[..., None, :])                  # [B, M, height, width]
    return tf.reduce_any(inside, axis=1)


def _middles(cells, stride):
    return (tf.range(cells, dtype=tf.float32) + 0.5) * stride


def count(boxes):
    """Boxes [B, M, 6] -> float32 [B], the objects that are targets."""
    return tf.reduce_sum(tf.cast((boxes[..., 4] >= 0) & (boxes[..., 5] < 0.5), tf.float32), axis=1)


def focal_loss(logits, heat, ignored):
    """Logits and heat [B, h, w, K], ignored bool [B, h, w] -> float32 [B].

    The quality focal loss, equation 2 of arXiv:2006.04388 with its beta of 2, from logits, so that nothing overflows:
    |heat - p|^2 times the cross-entropy of heat and p. CenterNet's own (arXiv:1904.07850, equation 1) asks for a high
    score at the one cell of a centre only, and learns more slowly: docs/vision.md.
    """
    loss = _quality(tf.cast(logits, tf.float32), heat)
    return tf.reduce_sum(tf.where(ignored[..., None], 0., loss), axis=[1, 2, 3])


@tf.custom_gradient
def _quality(logits, heat):
    """float32, twice -> float32. One gradient: by the sum of five that TensorFlow derives, 1 and 2x2 devices differed
    in last bits (E1)."""
    p = tf.sigmoid(logits)
    far, entropy = heat - p, tf.nn.softplus(logits) - heat * logits

    def gradient(upstream):
        return upstream * -far * (2. * p * (1. - p) * entropy + tf.square(far)), None
    return tf.square(far) * entropy, gradient


def box_loss(distances, boxes, owner, share, stride):
    """Distances [B, h, w, 4] in pixels, boxes [B, M, 6], owner and share [B, h, w] -> float32 [B].

    1 - generalised intersection over union (arXiv:1902.09630) of each cell's box and its owner's.
    """
    truth = tf.gather(boxes[..., :4], owner, batch_dims=1)                                   # [B, h, w, 4]
    loss = 1. - _giou(_corners(distances, stride), truth)
    return tf.reduce_sum(tf.where(share > 0., share * loss, 0.), axis=[1, 2])


def _corners(distances, stride):
    """Distances [B, h, w, 4] from the middles of the cells -> x0, y0, x1, y1 in pixels."""
    height, width = distances.shape[1:3]
    x = tf.tile(_middles(width, stride)[None], [height, 1])
    y = tf.tile(_middles(height, stride)[:, None], [1, width])
    middles = tf.stack([x, y], axis=-1)                                                      # [h, w, 2]
    return tf.concat([middles - distances[..., :2], middles + distances[..., 2:]], axis=-1)


def _giou(a, b):
    """Boxes [..., 4] of an area, or next to none -> float32 [...]."""
    low, high = tf.maximum(a[..., :2], b[..., :2]), tf.minimum(a[..., 2:], b[..., 2:])
    both = _product(tf.maximum(high - low, 0.))
    either = tf.maximum(_area(a) + _area(b) - both, 1e-6)
    sides = tf.maximum(a[..., 2:], b[..., 2:]) - tf.minimum(a[..., :2], b[..., :2])          # of the box around both
    around = tf.maximum(_product(sides), 1e-6)
    return both / either - (around - either) / around


def _area(boxes):
    return _product(boxes[..., 2:] - boxes[..., :2])


def _product(sides):
    return sides[..., 0] * sides[..., 1]      # the gradient of reduce_prod has no static shape


def find(outputs, classes, most, stride):
    """The map [B, h, w, classes + 4] -> {boxes [B, most, 4], scores [B, most], classes int32 [B, most]}, best first.

    A cell counts where no cell around it has a higher score. Equal neighbours both count.
    """
    height, width = outputs.shape[1:3]
    logits = outputs[..., :classes]      # ordered by logits: near 1, scores of different logits are equal
    highest = tf.nn.max_pool2d(logits, 3, 1, 'SAME')
    logits = tf.reshape(tf.where(logits == highest, logits, -FAR), [-1, height * width * classes])
    corners = tf.reshape(_corners(outputs[..., classes:], stride), [-1, height * width, 4])
    corners = tf.clip_by_value(corners, 0., [float(width * stride), float(height * stride)] * 2)
    most_there = min(most, height * width * classes)
    logits, places = tf.math.top_k(logits, most_there)                                       # [B, most]
    boxes = tf.gather(corners, places // classes, batch_dims=1)
    rest = most - most_there
    return {'boxes': tf.pad(boxes, [[0, 0], [0, rest], [0, 0]]),
            'scores': tf.pad(tf.sigmoid(logits), [[0, 0], [0, rest]]),
            'classes': tf.pad(places % classes, [[0, 0], [0, rest]])}
