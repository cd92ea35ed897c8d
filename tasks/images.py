"""What the tasks on images have in common: the signatures that they serve, and files that a person names."""

import os
import pathlib
import stat

import tensorflow as tf

from data.inputs import image_files
from errors import UserError


def signatures(shape, images, encoded, pixels):
    """{signature: (function, its TensorSpecs)}: raw images, the bytes of image files, and what the model reads.

    shape: (H, W, C) of the model's images. images, encoded, pixels: functions of uint8 [B, h, w, c], string [B] and
    float32 [B, H, W, C].
    """
    return {'serving_default': (images, [tf.TensorSpec([None, None, None, None], tf.uint8, name='images')]),
            'encoded': (encoded, [tf.TensorSpec([None], tf.string, name='image_bytes')]),
            'pixels': (pixels, [tf.TensorSpec([None, *shape], tf.float32, name='pixels')])}


def signature_inputs(images, pixels):
    """uint8 [B, h, w, c] and float32 [B, H, W, C], the same images -> {signature: [tensor]} for `signatures`."""
    encoded = tf.constant([tf.io.encode_png(image).numpy() for image in images])
    return {'serving_default': [images], 'encoded': [encoded], 'pixels': [pixels]}


def read_image(path):
    """The bytes of an image file that TensorFlow can decode.

    Raises:
        UserError: it is missing, no regular file (reading a pipe or a device may never end), or no such image.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UserError(f'`image` must be a regular file. Received: image={path!r}')
        data = pathlib.Path(path).read_bytes()
        image_files.decode(data)
    except OSError as error:
        raise UserError(f'`image` must be a file that can be read: {error.strerror}. '
                        f'Received: image={path!r}') from None
    except tf.errors.InvalidArgumentError:
        raise UserError(f'`image` must be a {image_files.FORMATS} file. Received: image={path!r}') from None
    return data
