"""Images to the model's shape. Training, evaluation and the served model use these same functions.

Letters of shapes: B images of h x w pixels and c channels, each unknown if need be -> H, W, C, which are fixed.
"""

import tensorflow as tf

from data.inputs import image_files
from data.inputs.augment import MIXING, augment, ordered
from data.inputs.colour import GREY
from data.inputs.mixing import mix
from errors import UserError


class ImageInput:
    """Images, or the bytes of image files, of any size -> float32 [B, H, W, C] in [0, 1]; the documents divide by 255.

    Attributes:
        shape: (H, W, C). names: of the recipe's augmentations, in order. mixing: those that need a second image.

    Args:
        dataset: a data.dataset.Dataset. name: of its field.
        data: the recipe's section of images: `image_size` and `channels` (0 keeps the data set's own) and `augment`.

    Raises:
        UserError: the data set's images vary in size and no size is given.
    """

    def __init__(self, dataset, name, data):
        field = dataset.fields[name]
        height, width, channels = field.shape
        self.shape = (data.image_size or height, data.image_size or width, data.channels or channels or 3)
        if not all(self.shape):
            raise UserError(f'`image_size` is needed for dataset={dataset.name}, whose images vary in size: they are '
                            'resized to it. Received: image_size=0')
        self._encoded = field.encoded
        self.names = ordered(data.augment)
        self.mixing = tuple(name for name in self.names if name in MIXING)
        self.sizes = {'input_shape': self.shape}

    def __call__(self, images):
        """uint8 [B, h, w, c] (c is 1, 3 or 4), or strings [B] of encoded images -> float32 [B, H, W, C]."""
        if images.dtype == tf.string:
            images = decode_images(images, self.shape)
        # Scale before resizing: most images are enlarged, so this touches fewer pixels.
        return fit(tf.cast(images, tf.float32) / 255., self.shape)

    def raw(self, images):
        """A source's images -> what a served model gets: uint8 [B, h, w, c]."""
        return tf.cast(decode_images(images, self.shape), tf.uint8) if self._encoded else images

    def augment(self, x, draws, boxes=None, mask=None):
        """x [b, H, W, C] -> (x, boxes, mask), changed as the recipe says, but for what mixes; see augment.augment."""
        return augment(self.names, x, draws, boxes, mask)

    def mix(self, x, partner, draws):
        """Images [b, H, W, C], twice, both augmented -> (x, share [b] of the first in it); see mixing.mix."""
        return mix(self.mixing, x, partner, draws)


def resize(images, height, width):
    """float32 or uint8 [B, h, w, c] -> float32 [B, H, W, c], bilinear, by operations that every runtime has.

    Shrinking averages all pixels (antialias), as each of the few left should. tf.image.resize does that by an operation
    that LiteRT, ONNX, OpenVINO and GPUs lack.
    """
    if images.shape[1:3] == (height, width):
        return tf.cast(images, tf.float32)
    if is_enlarged(images, height, width):      # both ways are the same function, and this one is faster
        return tf.image.resize(images, (height, width))
    return resize_by_products(tf.cast(images, tf.float32), height, width)


def fit(images, image_shape, resize=resize):
    """uint8 or float32 [B, h, w, c] (c is 1, 2, 3 or 4) -> float32 [B, H, W, C], in the same range of values.

    resize: how; see there and `resize_files`.
    """
    height, width, channels = image_shape
    if images.shape[3] is None:
        images = with_known_channels(images, channels)
    images = match_channels(images, channels)
    missing = [1, 1, 1, channels // images.shape[3]]
    # Grey becomes RGB where the image is smaller: tiling is what costs most.
    if is_enlarged(images, height, width):
        return resize(tf.tile(images, missing), height, width)
    return tf.tile(resize(images, height, width), missing)


def with_known_channels(images, channels):
    """`match_channels` where c is unknown (a file, a served request): [B, h, w, c] -> [B, h, w, 1 or 3].

    Without tf.cond: OpenVINO 2026.4 computes another image of such a graph.
    """
    is_grey = tf.shape(images)[3] < 3
    images = tf.gather(images, tf.where(is_grey, [0, 0, 0], [0, 1, 2]), axis=3)
    if channels == 3:
        return images
    shares = tf.where(is_grey, [1., 0., 0.], GREY)      # so that grey stays exactly what it was
    return tf.tensordot(tf.cast(images, tf.float32), shares[:, None], 1)


def match_channels(images, channels):
    """[B, h, w, c] -> [B, h, w, 1 or `channels`]: drops alpha, turns colour into grey if grey is wanted."""
    images = images[..., :1] if images.shape[3] < 3 else images[..., :3]
    if channels == 1 and images.shape[3] == 3:
        return tf.image.rgb_to_grayscale(tf.cast(images, tf.float32))      # of uint8 it would round
    return images


def resize_by_products(images, height, width):
    """`resize` as a matrix product per axis: float32 [B, h, w, c], h and w unknown if need be -> [B, H, W, c]."""
    h, w = (tf.shape(images)[i] if images.shape[i] is None else images.shape[i] for i in (1, 2))
    return by_matrices(images, triangles(height, h), triangles(width, w))


def by_matrices(x, rows, columns):
    """float32 [B, h, w, c], [H, h] and [W, w] -> [B, H, W, c]; any of B, h, w, H, W unknown if need be."""
    batch, h, w, c = _sides(x)
    height, width = _sides(rows)[0], _sides(columns)[0]
    x = tf.matmul(rows, tf.reshape(x, [batch, h, w * c]))                                # [B, H, w * c]
    # Columns last: a product of matrices with c columns would be slow.
    x = tf.transpose(tf.reshape(x, [batch, height, w, c]), [0, 1, 3, 2])                 # [B, H, c, w]
    x = tf.matmul(tf.reshape(x, [-1, w]), columns, transpose_b=True)                     # [B * H * c, W]
    return tf.transpose(tf.reshape(x, [batch, height, c, width]), [0, 1, 3, 2])


def _sides(x):
    return [tf.shape(x)[i] if side is None else side for i, side in enumerate(x.shape)]


def triangles(out, size, used=None, first=None):
    """float32 [out, size]: the share of each of `size` pixels in each of `out`, a triangle as tf.image.resize has.

    used, first: int32 scalars. Of `size`, the first `first` pixels alone go to the first `used` of `out`.
    """
    size = tf.convert_to_tensor(size)
    known = tf.cast(size if first is None else first, tf.float32)
    scale = known / tf.cast(out if used is None else used, tf.float32)
    centres = (tf.range(out, dtype=tf.float32) + 0.5) * scale
    pixels = tf.cast(tf.range(size), tf.float32) + 0.5
    shares = tf.maximum(0., 1. - tf.abs(pixels - centres[:, None]) / tf.maximum(scale, 1.))
    if used is None:
        return shares / tf.reduce_sum(shares, axis=1, keepdims=True)
    shares = tf.where((tf.range(out) < used)[:, None] & (pixels < known), shares, 0.)
    return shares / tf.maximum(tf.reduce_sum(shares, axis=1, keepdims=True), 1e-6)


def resize_files(images, height, width):
    """`resize` for decoded files, where its operation is always there: photographs take 0.2 to 0.6 of the time."""
    if images.shape[1:3] == (height, width):
        return tf.cast(images, tf.float32)
    images = tf.image.resize(images, (height, width), antialias=not is_enlarged(images, height, width))
    return tf.ensure_shape(images, [None, height, width, None])


def is_enlarged(images, height, width):
    h, w = images.shape[1:3]
    return h is not None and w is not None and h <= height and w <= width


def decode_images(encoded, image_shape):
    """string [B], bytes of image files -> float32 [B, H, W, C], in 0 to 255, upright. An animation's first picture."""
    def decode(one):
        file, turned = one
        return tf.cond(image_files.is_jpeg(file), lambda: _photograph(file, turned, image_shape), lambda: fit(
            image_files.decode_other(file, _channels(image_shape))[None], image_shape, resize_files)[0])
    images = tf.map_fn(decode, (encoded, image_files.orientations(encoded)),
                       fn_output_signature=tf.TensorSpec(image_shape, tf.float32))
    return tf.ensure_shape(images, [encoded.shape[0], *image_shape])


def _channels(image_shape):
    """What a decoder is asked for: it makes colour of grey, but grey of colour by other weights than ours."""
    return 3 if image_shape[2] == 3 else 0


def _photograph(file, turned, image_shape):
    """A JPEG's bytes and `orientation` -> float32 [H, W, C], see `resize_photographs`."""
    image, ratio = image_files.decode_jpeg_near(file, turned, image_shape[:2], _channels(image_shape))

    def resized(images, height, width):
        return resize_photographs(images, height, width, ratio)
    return fit(image[None], image_shape, resized)[0]


def resize_photographs(images, height, width, ratio):
    """`resize_files` for JPEGs, decoded by `ratio`, faster and not quite the same: uint8 [B, h, w, c] -> [B, H, W, c].

    To resize 375x500 pixels with antialias takes three times as long as to decode them. Where the decoder has shrunk
    the picture (`ratio`), few pixels are left, and the means of their areas are cheap. Where it has not, and there are
    at most four pixels for each one wanted, bilinear interpolation reads four. The mean difference from an antialiased
    resize of all pixels, over photographs of 375x500 pixels, is 1.2 to 1.3 of 255 (112 to 160 pixels) and 1.4 (224).
    """
    shape, size = tf.shape(images)[1:3], tf.constant([height, width])
    is_shrunk = tf.reduce_all(shape >= size)
    is_near = (ratio == 1) & (tf.reduce_prod(shape) <= 4 * height * width)
    resized = tf.switch_case(tf.where(is_shrunk, tf.where(is_near, 0, 1), 2), [
        lambda: tf.image.resize(images, (height, width)), lambda: tf.image.resize(images, (height, width), 'area'),
        lambda: tf.image.resize(images, (height, width), antialias=True)])
    return tf.ensure_shape(resized, [None, height, width, None])
