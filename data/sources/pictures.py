"""Image files with something to each: boxes, a mask. Images of one size are decoded here; others come as bytes."""

import hashlib
import os
import warnings

import tensorflow as tf

from data.dataset import Image
from data.inputs import image_files
from data.inputs.images import with_known_channels
from data.sources.folders import check_regular
from errors import UserError

PILLOW = ('JPEG', 'PNG', 'BMP', 'GIF', 'WEBP')      # what it calls image_files.FORMATS
ORIENTATION, SIDEWAYS = 0x112, 5                    # Exif's tag; from this value on, width and height change places


class Pictures:
    """Images, and what belongs to each.

    Args:
        files: paths. image: the field's kind. about: hash of what belongs to them.
        others: {name: function int64 [B] -> tensor [B, ...]}; one may have `find_unreadable`.
    """

    in_memory, decodes_files = False, True

    def __init__(self, files, image, about, **others):
        self.num_examples, self._image, self._others = len(files), image, others
        sizes = ''.join(f'{file} {os.path.getsize(file)}\n' for file in files)
        self.fingerprint = hashlib.sha256((about + sizes).encode('utf-8', 'surrogateescape')).hexdigest()[:16]
        with tf.device('CPU:0'):
            self._paths = tf.constant([os.fsencode(file) for file in files])
        self._gathers = {'image': self._images, **others}

    def gather(self, indices, fields=None):
        return {name: self._gathers[name](indices) for name in fields or self._gathers}

    def _images(self, indices):
        paths = tf.gather(self._paths, indices)
        if self._image.encoded:
            return tf.map_fn(tf.io.read_file, paths)
        images = tf.map_fn(self._decoded, paths, fn_output_signature=tf.TensorSpec(self._image.shape, tf.uint8))
        return tf.ensure_shape(images, [paths.shape[0], *self._image.shape])

    def _decoded(self, path):
        """The file -> uint8 [H, W, 3]."""
        file = tf.io.read_file(path)
        image = tf.cond(image_files.is_jpeg(file), lambda: image_files.decode_jpeg(file, channels=3),
                        lambda: with_known_channels(image_files.decode_other(file)[None], 3)[0])
        return tf.ensure_shape(image, self._image.shape)

    def find_unreadable(self):
        """The first file that cannot be read and decoded, or None. Slow: for the message after a failure."""
        for path in self._paths:
            try:
                image = image_files.decode(tf.io.read_file(path))
                if not self._image.encoded:
                    tf.ensure_shape(image, [*self._image.shape[:2], None])
            except (tf.errors.OpError, ValueError):
                return os.fsdecode(path.numpy())
        others = (other.find_unreadable() for other in self._others.values() if hasattr(other, 'find_unreadable'))
        return next(filter(None, others), None)


def image_field(sizes):
    """The kind of the field of images of these sizes, [(width, height)]: RGB, decoded if all are of one size."""
    width, height = sizes[0] if len(set(sizes)) == 1 else (0, 0)
    return Image((height, width, 3))


def picture_size(path):
    """(width, height) of an image file, upright; from its head.

    Raises:
        UserError: it is missing, no regular file, or no image.
    """
    PIL = _pillow()
    check_regular(path)
    before, PIL.MAX_IMAGE_PIXELS = PIL.MAX_IMAGE_PIXELS, None      # it would refuse a large image that is not decoded
    try:
        with warnings.catch_warnings(action='ignore'), PIL.open(path, formats=PILLOW) as image:      # of broken Exif
            sideways = image.format in ('JPEG', 'MPO') and image.getexif().get(ORIENTATION, 1) >= SIDEWAYS
            return image.size[::-1] if sideways else image.size
    except FileNotFoundError:
        raise UserError(f'`dataset` {path} is missing') from None
    except Exception as error:             # of many types: each format raises its own
        raise UserError(f'`dataset` {path} must be a {image_files.FORMATS} image. '
                        f'Received: {type(error).__name__}') from None
    finally:
        PIL.MAX_IMAGE_PIXELS = before


def _pillow():
    try:
        from PIL import Image as module
        return module
    except ImportError:
        raise UserError('`dataset` of images with boxes or masks needs Pillow: pip install -e ".[vision]"') from None
