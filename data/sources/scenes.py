"""Scenes composed of real images of single objects, with exact boxes and masks: for detection and segmentation.

fashion_scenes has articles of Fashion-MNIST, digit_scenes handwritten digits. A scene is a colour image, 128x128: one
to six objects, enlarged and tinted, before a background of colour noise. 100,000 train, 1,000 validation, 2,000 test;
each split has the objects of the same split of its source, so no object of one is seen in another.

Objects may overlap. One that would leave less than half of another to be seen is left out. A box is the extent of the
pixels of its object that are seen; a mask has the class of what is seen at each pixel, 0 for the background.

Which objects are where is drawn once, 25 MB for all scenes; the pixels are computed when they are asked for, by exact
arithmetic, so that they are the same on any machine. Four classes of Fashion-MNIST that are hard to tell apart are one,
top: a scene is about finding.
"""

import numpy as np
import tensorflow as tf

from data.dataset import Boxes, Dataset, Image, Mask
from data.inputs.boxes import padding_last
from data.source import hash_arrays
from data.sources.digits import open_digits
from data.sources.fashion_mnist import open_fashion_mnist
from errors import UserError

SIZES = {'train': 100_000, 'validation': 1_000, 'test': 2_000}
SIDE, MOST = 128, 6                # pixels of a scene, objects in it
SMALLEST, LARGEST = 28, 64         # pixels that an object's image takes in a scene
THRESHOLD = 26                     # of 255: darker pixels of an object's image are its background
STEPS = 64                         # shares of pixels are multiples of 1/64, and their products exact in float32
FASHION = {'top': (0, 2, 4, 6), 'trouser': (1,), 'dress': (3,), 'sandal': (5,), 'sneaker': (7,), 'bag': (8,),
           'ankle boot': (9,)}


def open_fashion_scenes(data_dir=None):
    return compose('fashion_scenes', open_fashion_mnist(data_dir), FASHION)


def open_digit_scenes(data_dir=None):
    return compose('digit_scenes', open_digits(data_dir), {str(digit): (digit,) for digit in range(10)})


def compose(name, objects, classes):
    """A data set of scenes.

    Args:
        objects: a Dataset of an image and a label, grey and square, all of one size.
        classes: {name: the labels that it has}.
    """
    shape = objects.fields['image'].shape
    if shape[0] != shape[1] or shape[2] != 1 or not shape[0]:
        raise UserError(f'`dataset` {name} is composed of square grey images of one size. Received: {objects.name} of '
                        f'shape {shape}, from {objects.origin}')
    class_of = np.zeros(max(map(max, classes.values())) + 1, np.int32)
    for number, labels in enumerate(classes.values()):
        class_of[list(labels)] = number
    sources = (Scenes(objects.split(split), shape[0], class_of, size, seed)
               for seed, (split, size) in enumerate(SIZES.items()))
    names = tuple(classes)
    fields = {'image': Image((SIDE, SIDE, 3)), 'boxes': Boxes(names, MOST),
              'mask': Mask(('background', *names), (SIDE, SIDE))}
    return Dataset(name, *sources, fields=fields, origin=objects.origin)


class Scenes:
    """Scenes of the objects of one split.

    Args:
        objects: source of `image`, uint8 [B, side, side, 1], and `label`. class_of: int32 [labels], class of each
            label. count: number of scenes. seed: of what is drawn.
    """

    in_memory, decodes_files = False, False

    def __init__(self, objects, side, class_of, count, seed):
        self.num_examples = count
        self._objects, self._side = objects, side
        arrays = {**draw(objects.num_examples, count, seed), 'noise': noise(seed), 'class_of': class_of}
        self.fingerprint = hash_arrays({**arrays, 'objects': np.array([objects.fingerprint], object)})
        with tf.device('CPU:0'):
            self._drawn = {name: tf.constant(array) for name, array in arrays.items()}
            self._shares = tf.constant(shares(side))

    def gather(self, indices, fields=None):
        with tf.device('CPU:0'):       # a GPU may round products of matrices
            return self._gather(indices, fields or ('image', 'boxes', 'mask'))

    def _gather(self, indices, fields):
        one = {name: tf.gather(self._drawn[name], indices)
               for name in ('object', 'size', 'place', 'tint', 'backdrop', 'count')}
        objects = self._objects.gather(tf.reshape(one['object'], [-1]), ['image', 'label'])
        classes = tf.reshape(tf.gather(self._drawn['class_of'], objects['label']), [-1, MOST])
        grey = self._placed(tf.reshape(objects['image'], [-1, MOST, self._side, self._side]), one)
        seen = visible(grey > 0, one['count'])
        found = {}
        for name in fields:
            if name == 'image':
                found[name] = self._image(grey, seen, one)
            elif name == 'boxes':
                found[name] = boxes_of(seen, classes)
            else:
                found[name] = tf.cast(of_pixels(classes + 1, seen), tf.uint8)
        return found

    def _placed(self, images, one):
        """uint8 [B, MOST, side, side] -> float32 [B, MOST, SIDE, SIDE], whole numbers, 0 where the object is not."""
        rows = self._axis(one['place'][..., 0], one['size'])               # [B, MOST, SIDE, side]
        columns = self._axis(one['place'][..., 1], one['size'])
        placed = tf.matmul(tf.matmul(rows, tf.cast(images, tf.float32)), columns, transpose_b=True)
        placed = tf.round(placed)
        return tf.where(placed >= THRESHOLD, placed, 0.)

    def _axis(self, first, size):
        """int32 [B, MOST], first pixel and size -> [B, MOST, SIDE, side], shares of its own pixels in the scene's."""
        pixel = tf.range(SIDE) - first[..., None]
        pixel = tf.where((pixel >= 0) & (pixel < size[..., None]), pixel, LARGEST)          # LARGEST has no share
        return tf.gather(self._shares, (size[..., None] - SMALLEST) * (LARGEST + 1) + pixel)

    def _image(self, grey, seen, one):
        rows = tf.gather(self._drawn['noise'], one['backdrop'][:, :1] + tf.range(SIDE))
        backdrop = tf.gather(rows, one['backdrop'][:, 1:] + tf.range(SIDE), axis=2, batch_dims=1)
        value = sum(tf.where(seen == k + 1, grey[:, k], 0.) for k in range(MOST))           # [B, SIDE, SIDE]
        colour = value[..., None] * of_pixels(one['tint'], seen)                            # 8 bits, twice: exact
        return tf.where(seen[..., None] > 0, tf.cast(tf.round(colour), tf.uint8), backdrop)


def draw(objects, count, seed):
    """Which objects are where in `count` scenes, of `objects` that there are."""
    random = np.random.RandomState(seed)           # its numbers are the same in every version of NumPy
    size = random.randint(SMALLEST, LARGEST + 1, (count, MOST)).astype(np.int32)
    return {'object': random.randint(0, objects, (count, MOST)).astype(np.int64), 'size': size,
            'place': (random.random_sample((count, MOST, 2)) * (SIDE - size[..., None] + 1)).astype(np.int32),
            'tint': (random.randint(96, 257, (count, MOST, 3)) / 256).astype(np.float32),
            'backdrop': random.randint(0, SIDE + 1, (count, 2)).astype(np.int32),
            'count': random.randint(1, MOST + 1, count).astype(np.int32)}


def noise(seed):
    """uint8 [2 SIDE, 2 SIDE, 3]: colour noise of three scales, of which a scene's background is a part."""
    random = np.random.RandomState(seed + len(SIZES))
    total = np.zeros((2 * SIDE, 2 * SIDE, 3), np.int64)
    for scale, most in ((16, 80), (4, 40), (1, 40)):
        cells = random.randint(0, most, (2 * SIDE // scale, 2 * SIDE // scale, 3))
        total += np.kron(cells, np.ones((scale, scale, 1), np.int64))
    return total.astype(np.uint8)


def shares(side):
    """float32 [sizes * (LARGEST + 1), side]: bilinear shares of `side` pixels in each pixel of each larger size."""
    table = np.zeros((LARGEST - SMALLEST + 1, LARGEST + 1, side), np.float32)
    for size in range(SMALLEST, LARGEST + 1):
        # In units of 1 / STEPS, rounded down: whole numbers, so nothing depends on how a machine rounds.
        centre = np.clip(((2 * np.arange(size) + 1) * side * STEPS // size - STEPS) // 2, 0, (side - 1) * STEPS)
        distance = np.abs(centre[:, None] - STEPS * np.arange(side))
        table[size - SMALLEST, :size] = np.maximum(STEPS - distance, 0) / STEPS
    return table.reshape(-1, side)


def visible(whole, count):
    """bool [B, MOST, SIDE, SIDE], where objects are, the later before the earlier -> int32 [B, SIDE, SIDE].

    1 + the number of the object that is seen at a pixel; 0 for the background. An object is left out where less than
    half of an earlier one would still be seen.
    """
    area = tf.reduce_sum(tf.cast(whole, tf.int32), axis=[2, 3])                             # [B, MOST]
    seen = tf.zeros_like(whole[:, 0], tf.int32)
    for k in range(MOST):
        after = tf.where(whole[:, k], k + 1, seen)
        enough = (k < count) & (area[:, k] > 0)
        for earlier in range(k):
            left = tf.reduce_sum(tf.cast(after == earlier + 1, tf.int32), axis=[1, 2])
            is_there = tf.reduce_any(seen == earlier + 1, axis=[1, 2])
            enough &= ~is_there | (2 * left >= area[:, earlier])
        seen = tf.where(enough[:, None, None], after, seen)
    return seen


def of_pixels(values, seen):
    """Values [B, MOST, ...] of the objects -> [B, SIDE, SIDE, ...], that of the object that is seen; 0 for none."""
    none = tf.zeros_like(values[:, :1])
    return tf.gather(tf.concat([none, values], axis=1), seen, batch_dims=1)


def boxes_of(seen, classes):
    """int32 [B, SIDE, SIDE], see `visible`, and [B, MOST] -> float32 [B, MOST, 6], see data.dataset.Boxes."""
    each = tf.stack([seen == k + 1 for k in range(MOST)], axis=1)
    corners = []
    for axis in (2, 3):                                                                     # over rows, for x
        line = tf.cast(tf.reduce_any(each, axis=axis), tf.int32)                            # [B, MOST, SIDE]
        corners += [tf.argmax(line, axis=-1, output_type=tf.int32),
                    SIDE - tf.argmax(line[..., ::-1], axis=-1, output_type=tf.int32)]
    x0, x1, y0, y1 = corners
    is_there = tf.reduce_any(each, axis=[2, 3])
    boxes = tf.cast(tf.stack([x0, y0, x1, y1, classes, tf.zeros_like(x0)], axis=-1), tf.float32)
    return padding_last(boxes, is_there)
