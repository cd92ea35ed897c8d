"""Boxes and masks of TensorFlow Datasets -> our kinds of fields.

Boxes are a sequence of {a bbox, a label}; TFDS gives corners as shares of the image's height and width. `is_crowd` or
`is_difficult` makes an object an ignored one. Masks are labelled images, and those of the sets in MASKS.
"""

import numpy as np
import tensorflow as tf

from data.dataset import Boxes, Mask
from data.inputs import image_files
from data.inputs.boxes import padding_last
from data.sources.masks import encode

MOST = 128                  # boxes of an image in sets that are not held in memory; of more, the first
IGNORED = ('is_crowd', 'is_difficult', 'iscrowd')
# set -> (field, value of the first class, names); any other value is void.
MASKS = {'oxford_iiit_pet': ('segmentation_mask', 1, ('pet', 'background', 'border')),
         'scene_parse150': ('annotation', 1, tuple(str(value) for value in range(1, 151)))}


def boxes_field(feature):
    """(Boxes, {part: its key below the feature's}), or None for any other feature."""
    import tensorflow_datasets as tfds
    inner = getattr(feature, 'feature', None)
    if not isinstance(feature, tfds.features.Sequence) or not isinstance(inner, tfds.features.FeaturesDict):
        return None
    boxes = [key for key, one in inner.items() if isinstance(one, tfds.features.BBoxFeature)]
    labels = [key for key, one in inner.items() if isinstance(one, tfds.features.ClassLabel)]
    label = 'label' if 'label' in labels else labels[0] if len(labels) == 1 else None
    if len(boxes) != 1 or label is None:
        return None
    keys = {'bbox': boxes[0], 'label': label, 'ignored': next((key for key in IGNORED if key in inner), None)}
    names = tuple(inner[label].int2str(i) for i in range(inner[label].num_classes))
    return Boxes(names, MOST), {part: key for part, key in keys.items() if key}


def mask_field(dataset, key, feature):
    """(Mask, uint8 [256], the class of each value), or None for any other feature. dataset: its name."""
    import tensorflow_datasets as tfds
    field, first, names = MASKS.get(dataset, ('', 0, ()))
    if isinstance(feature, tfds.features.LabeledImage) and feature.num_classes:
        names = tuple(feature.names)
    elif key != field or not isinstance(feature, tfds.features.Image):
        return None
    table = np.full(256, Mask.void, np.uint8)
    table[first:first + len(names)] = np.arange(len(names))
    return Mask(names, tuple(size or 0 for size in feature.shape[:2])), table


def most_boxes(examples, key, parts):
    """How many boxes the image has that has most. examples: iterable of batches of tf.train.Example, string [B]."""
    label = f'{key}/{parts["label"]}'
    lengths = (tf.io.parse_example(batch, {label: tf.io.RaggedFeature(tf.int64)})[label].row_lengths()
               for batch in examples)
    return max(int(tf.reduce_max(one)) for one in lengths)


def boxes_specs(key, parts):
    """How TFDS writes them into a tf.train.Example."""
    return {f'{key}/{name}': tf.io.RaggedFeature(tf.float32 if part == 'bbox' else tf.int64)
            for part, name in parts.items()}


def decode_boxes(parsed, key, parts, field, sizes):
    """float32 [B, most, 6]. parsed: what `boxes_specs` gives. sizes: int32 [B, 2], height and width of each image."""
    corners = parsed[f'{key}/{parts["bbox"]}'].to_tensor(shape=[None, field.most * 4])
    corners = tf.reshape(corners, [-1, field.most, 4])                                  # y0, x0, y1, x1
    corners = tf.clip_by_value(corners, 0., 1.) * tf.cast(tf.tile(sizes, [1, 2]), tf.float32)[:, None]
    classes = _whole(parsed, key, parts['label'], field.most)
    ignored = tf.zeros_like(classes)
    if 'ignored' in parts:
        ignored = tf.maximum(_whole(parsed, key, parts['ignored'], field.most), 0.)
    boxes = tf.concat([tf.gather(corners, [1, 0, 3, 2], axis=-1), tf.stack([classes, ignored], axis=-1)], axis=-1)
    has_area = (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
    return padding_last(boxes, has_area & (classes >= 0))


def _whole(parsed, key, name, most):
    """float32 [B, most], -1 where there is none."""
    return tf.cast(parsed[f'{key}/{name}'].to_tensor(default_value=-1, shape=[None, most]), tf.float32)


def decode_masks(files, table, field):
    """string [B] -> uint8 [B, H, W], or string [B]: see data.dataset.Mask."""
    spec = tf.TensorSpec([], tf.string) if field.encoded else tf.TensorSpec(field.shape, tf.uint8)

    def decode(file):
        mask = tf.gather(tf.constant(table), tf.cast(tf.io.decode_png(file)[..., 0], tf.int32))
        return encode(mask) if field.encoded else tf.ensure_shape(mask, field.shape)
    return tf.map_fn(decode, files, fn_output_signature=spec)


def image_sizes(files, field):
    """string [B], image files of a field's kind -> int32 [B, 2], height and width, upright."""
    if not field.encoded:
        return tf.tile([field.shape[:2]], [tf.shape(files)[0], 1])

    def size(file):
        def jpeg():
            shape = tf.io.extract_jpeg_shape(file)[:2]
            return tf.where(image_files.orientation(file) > 4, shape[::-1], shape)
        return tf.cond(image_files.is_jpeg(file), jpeg, lambda: tf.shape(image_files.decode_other(file))[:2])
    return tf.map_fn(size, files, fn_output_signature=tf.TensorSpec([2], tf.int32))
