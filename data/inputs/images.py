"""Images to the model's shape. Training, evaluation and the served model use these same functions.

Letters of shapes: B images of h x w pixels and c channels, each unknown if need be -> H, W, C, which are fixed.
"""

import tensorflow as tf

from data.inputs import image_files
from data.inputs.augment import AUGMENTATIONS, augment
from errors import UserError, lookup


class ImageInput:
    """Images, or the bytes of image files, of any size -> float32 [B, H, W, C] in [0, 1]; the documents divide by 255.

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
        self._transform = lookup(AUGMENTATIONS, data.augment, 'augment')
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

    def augment(self, x, draws):
        """x [b, H, W, C] -> (x, moved [b, 8]), the recipe's random transform; None where nothing moved."""
        return augment(x, self._transform, draws) if self._transform else (x, None)


def fit(images, image_shape):
    """uint8 or float32 [B, h, w, c] (c is 1, 2, 3 or 4) -> float32 [B, H, W, C], in the same range of values.

    A static c is resolved now; an unknown one (a file, a served request) is resolved when it runs.
    """
    height, width, channels = image_shape
    if images.shape[3] is None:
        def known(c):
            return fit(tf.ensure_shape(images[..., :c], [*images.shape[:3], c]), image_shape)
        return tf.cond(tf.shape(images)[3] < 3, lambda: known(1), lambda: known(3))
    images = match_channels(images, channels)
    missing = [1, 1, 1, channels // images.shape[3]]
    # Grey becomes RGB where the image is smaller: tiling is what costs most.
    if is_enlarged(images, height, width):
        return resize(tf.tile(images, missing), height, width)
    return tf.tile(resize(images, height, width), missing)


def match_channels(images, channels):
    """[B, h, w, c] -> [B, h, w, 1 or `channels`]: drops alpha, turns colour into grey if grey is wanted."""
    images = images[..., :1] if images.shape[3] < 3 else images[..., :3]
    if channels == 1 and images.shape[3] == 3:
        return tf.image.rgb_to_grayscale(tf.cast(images, tf.float32))      # of uint8 it would round
    return images


def resize(images, height, width):
    """Bilinear, to float32. Shrinking averages all pixels (antialias), as each of the few left should."""
    if images.shape[1:3] == (height, width):
        return tf.cast(images, tf.float32)
    # To enlarge, both ways are the same function; the plain one is faster.
    images = tf.image.resize(images, (height, width), antialias=not is_enlarged(images, height, width))
    return tf.ensure_shape(images, [None, height, width, None])


def is_enlarged(images, height, width):
    h, w = images.shape[1:3]
    return h is not None and w is not None and h <= height and w <= width


def decode_images(encoded, image_shape):
    """string [B], bytes of image files -> float32 [B, H, W, C], in 0 to 255, upright. An animation's first picture."""
    channels = 3 if image_shape[2] == 3 else 0      # to colour by the decoder; to grey by our own weights

    def decode(one):
        return tf.cond(image_files.is_jpeg(one),
                       lambda: fit(image_files.decode_jpeg(one, channels)[None], image_shape)[0],
                       lambda: fit(image_files.decode_other(one)[None], image_shape)[0])
    images = tf.map_fn(decode, encoded, fn_output_signature=tf.TensorSpec(image_shape, tf.float32))
    return tf.ensure_shape(images, [encoded.shape[0], *image_shape])
