"""Images of any size to a model's, with their proportions kept: for boxes and masks, which move with them.

An image is resized to fit, and lies in the upper left corner; what is left of the model's image is black, and no part
of it. Training, evaluation and the served model use these same functions.

Letters of shapes: B images of h x w pixels and c channels, each unknown if need be -> H, W, C, which are fixed.
"""

import math

import tensorflow as tf

from data.dataset import Mask
from data.inputs import image_files
from data.inputs.augment import augment
from data.inputs.images import by_matrices, is_enlarged, match_channels, triangles, with_known_channels
from errors import UserError

MULTIPLE = 32       # of pixels that a side of the model's image has: the product of a ResNet's strides


class Letterbox:
    """Images, or the bytes of image files, of any size -> uint8 [B, H, W, C].

    Attributes:
        shape: (H, W, C). sizes: what the task gives the model's builder.

    Args:
        dataset: a data.dataset.Dataset. name: of its field.
        data: the recipe's section of images. `image_size` is the longer side; 0 keeps the data set's own size.
            Sides are rounded up to multiples of 32.

    Raises:
        UserError: the data set's images vary in size and no size is given, or it is no such multiple.
    """

    def __init__(self, dataset, name, data):
        field = dataset.fields[name]
        height, width, channels = field.shape
        if data.image_size % MULTIPLE:
            raise UserError(f'`image_size` must be a multiple of {MULTIPLE} where images have boxes or masks. '
                            f'Received: image_size={data.image_size}')
        if not data.image_size and field.encoded:
            raise UserError(f'`image_size` is needed for dataset={dataset.name}, whose images vary in size: they are '
                            'resized so that the longer side has it. Received: image_size=0')
        if field.encoded:
            height = width = data.image_size
        longer = data.image_size or max(height, width)
        height, width = (fitted(side, longer / max(height, width)) for side in (height, width))
        self.shape = (*(MULTIPLE * math.ceil(side / MULTIPLE) for side in (height, width)), data.channels or channels)
        self.sizes = {'input_shape': self.shape}
        self._encoded, self._names = field.encoded, data.augment

    def __call__(self, images):
        """uint8 [B, h, w, c] or strings [B] -> (uint8 [B, H, W, C], int32 [B, 2], the heights and widths of images).

        Rounded to bytes, which is how prepared rows are kept.
        """
        if images.dtype == tf.string:
            return self._decoded(images)
        size = tf.tile(tf.shape(images)[None, 1:3], [tf.shape(images)[0], 1])
        return self._fitted(images), size

    def pixels(self, images):
        """uint8 [B, H, W, C] -> what the model reads, float32 in [0, 1]."""
        return tf.cast(images, tf.float32) / 255.

    def augment(self, pixels, draws, boxes=None, mask=None):
        """The recipe's random transforms: (float32 [B, H, W, C], boxes [B, M, 6], mask [B, H, W]), see augment.py."""
        return augment(self._names, pixels, draws, boxes, mask)

    def raw(self, images):
        """A source's images -> what a served model gets: uint8 [B, h, w, c]."""
        return self(images)[0] if self._encoded else images

    def used(self, size):
        """int32 [B, 2] sizes of images -> int32 [B, 2], rows and columns that they take of the model's image."""
        size = tf.cast(size, tf.float32)
        scale = tf.reduce_min(tf.constant(self.shape[:2], tf.float32) / size, axis=1, keepdims=True)
        return tf.maximum(tf.cast(tf.round(size * scale), tf.int32), 1)

    def to_model(self, boxes, size):
        """Boxes [B, M, 6] in pixels of images of these sizes -> the same in pixels of the model's image."""
        return self._scaled(boxes, tf.cast(self.used(size), tf.float32) / tf.cast(size, tf.float32))

    def to_image(self, boxes, size):
        """The way back, for corners [B, M, 4]: cut at the edges of the images."""
        limits = tf.cast(tf.tile(size[:, ::-1], [1, 2]), tf.float32)[:, None]                # w, h, w, h
        boxes = self._scaled(boxes, tf.cast(size, tf.float32) / tf.cast(self.used(size), tf.float32))
        return tf.clip_by_value(boxes, 0., limits)

    @staticmethod
    def _scaled(boxes, scale):
        """scale: [B, 2], of y and x."""
        factors = tf.tile(scale[:, ::-1], [1, 2])[:, None]                                   # x, y, x, y
        return tf.concat([boxes[..., :4] * factors, boxes[..., 4:]], axis=-1)

    def mask_to_model(self, mask, size):
        """uint8 [h, w], the mask of an image of this size, int32 [2] -> uint8 [H, W], nearest pixels, void around."""
        return resize_mask(mask, self.used(size[None])[0], self.shape[:2])

    def enlarged(self, values, used, size, out):
        """float32 [B, H, W, K] of the model's pixels, of which images take the first `used` -> [B, *out, K].

        There they take the first `size`, their own or a smaller one, by bilinear resizing. All are int32 [2].
        """
        return by_matrices(values, *(triangles(out[i], self.shape[i], size[i], used[i]) for i in (0, 1)))

    def _fitted(self, images, by_products=True):
        """[B, h, w, c] -> uint8 [B, H, W, C]."""
        height, width, channels = self.shape
        if images.shape[3] is None:
            images = with_known_channels(images, channels)
        images = match_channels(images, channels)
        if images.shape[1:3] != (height, width):
            images = self._resized(images, by_products)
        images = tf.cast(tf.round(tf.cast(images, tf.float32)), tf.uint8)
        return tf.tile(images, [1, 1, 1, channels // images.shape[3]])

    def _resized(self, images, by_products):
        size = tf.shape(images)[1:3]
        used = self.used(size[None])[0]
        if by_products:
            shares = (triangles(out, size[i], used[i]) for i, out in enumerate(self.shape[:2]))
            return by_matrices(tf.cast(images, tf.float32), *shares)
        images = tf.image.resize(images, used, antialias=not is_enlarged(images, *self.shape[:2]))
        return tf.image.pad_to_bounding_box(images, 0, 0, *self.shape[:2])

    def _decoded(self, files):
        """string [B] -> (uint8 [B, H, W, C], int32 [B, 2])."""
        channels = 3 if self.shape[2] == 3 else 0

        def decode(file):
            image = tf.cond(image_files.is_jpeg(file), lambda: image_files.decode_jpeg(file, channels),
                            lambda: image_files.decode_other(file))
            return self._fitted(image[None], by_products=False)[0], tf.shape(image)[:2]
        specs = tf.TensorSpec(self.shape, tf.uint8), tf.TensorSpec([2], tf.int32)
        images, size = tf.map_fn(decode, files, fn_output_signature=specs)
        return tf.ensure_shape(images, [files.shape[0], *self.shape]), tf.ensure_shape(size, [files.shape[0], 2])


def fitted(side, scale):
    return max(1, round(side * scale))


def resize_mask(mask, size, out):
    """uint8 [h, w] -> uint8 [*out], of the nearest pixels in its first `size` rows and columns, void in the others."""
    full = tf.shape(mask)
    rows, columns = (tf.minimum((2 * tf.range(out[i]) + 1) * full[i] // (2 * size[i]), full[i] - 1) for i in (0, 1))
    mask = tf.gather(tf.gather(mask, rows), columns, axis=1)
    is_there = (tf.range(out[0]) < size[0])[:, None] & (tf.range(out[1]) < size[1])
    return tf.where(is_there, mask, tf.constant(Mask.void, tf.uint8))
