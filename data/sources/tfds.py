"""Sets of TensorFlow Datasets, by name: cifar10, imdb_reviews, wmt14_translate/de-en, ...

Prepared once by TFDS, as TFRecord files, or used as they lie in --data_dir; read by index (see records.py), decoded in
the graph. Put files that you downloaded by hand in DATA_DIR/downloads/manual/.
A split that the dataset lacks is a fixed tenth of train (at most 5,000); splits never overlap.
"""

import contextlib
import dataclasses
import hashlib
import logging
import os
import re
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from data.dataset import Boxes, Dataset, Image, Label, Mask, Number, Text, Vector
from data.inputs import image_files
from data.inputs.images import fit
from data.source import Subset, split_indices
from data.sources import tfds_objects, tfds_questions
from data.sources.records import are_small, open_records
from errors import UserError

CARVED = 5_000
SOUGHT = 64     # examples among which one with a box is looked for
RETRIES = 3     # TFDS's own number keeps a machine without a network waiting for minutes


class Unavailable(UserError):
    """The dataset cannot be had. known: the names that TensorFlow Datasets has, if `name` is not one of them."""

    def __init__(self, message, known=None):
        super().__init__(message)
        self.known = known


class PreparedSplit:
    """A split as TFDS prepared it, read by index.

    keys, fields, parts: as `convert_fields` gives them.
    """

    in_memory, decodes_files = False, False

    def __init__(self, builder, split, keys, fields, parts):
        paths = [str(path) for path in builder.info.splits[split].filepaths]
        self.num_examples, self._records = open_records(paths)
        name = f'{builder.info.full_name} {split} {self.num_examples}'          # the full name has the version
        self.fingerprint = hashlib.sha256(name.encode()).hexdigest()[:16]
        self._small = are_small(paths)
        self._keys, self._fields, self._parts, self._features = keys, fields, parts, builder.info.features

    def gather(self, indices, fields=None):
        fields = {name: self._fields[name] for name in fields or self._fields}
        specs = {}
        for name, field in fields.items():
            specs |= self._specs(self._keys[name], field)
        parsed = tf.io.parse_example(self._records(indices), specs)
        return {name: self._decode(parsed, self._keys[name], field) for name, field in fields.items()}

    def most_boxes(self, name):
        """How many boxes a field has in the image that has most; its own `most` if the images are not in memory."""
        if not self._small:
            return self._fields[name].most
        batches = tf.data.Dataset.range(self.num_examples).batch(1024).map(self._records)
        return tfds_objects.most_boxes(batches, self._keys[name], self._parts[self._keys[name]])

    def _specs(self, key, field):
        """{key in a tf.train.Example: how it is stored} of what a field is decoded from."""
        if not isinstance(field, Boxes):
            return {key: self._stored(key, field)}
        return {**tfds_objects.boxes_specs(key, self._parts[key]),
                self._keys[self._image()]: tf.io.FixedLenFeature([], tf.string)}

    def _image(self):
        """The name of the field of images that boxes are shares of."""
        images = [name for name, field in self._fields.items() if isinstance(field, Image)]
        return 'image' if 'image' in images else images[0]

    def _stored(self, key, field):
        """How TFDS writes a feature into a tf.train.Example: numbers as int64 or float32, anything else as bytes."""
        if not isinstance(field, (Label, Number, Vector)):
            return tf.io.FixedLenFeature([], tf.string)
        whole = np.issubdtype(self._features[key].np_dtype, np.integer)
        return tf.io.FixedLenFeature(self._features[key].shape, tf.int64 if whole else tf.float32)

    def _decode(self, parsed, key, field):
        if isinstance(field, Boxes):
            image = self._image()
            sizes = image_files.sizes_of(parsed[self._keys[image]], self._fields[image])
            boxes = tfds_objects.decode_boxes(parsed, key, self._parts[key], field, sizes)
            return tf.ensure_shape(boxes, [parsed[self._keys[image]].shape[0], field.most, 6])
        values = parsed[key]
        if isinstance(field, Mask):
            masks = tfds_objects.decode_masks(values, self._parts[key], field)
            return tf.ensure_shape(masks, [values.shape[0], *masks.shape[1:]])
        if isinstance(field, (Label, Number, Vector)):
            return tf.cast(values, tf.int32 if isinstance(field, Label) else tf.float32)
        if not isinstance(field, Image) or field.encoded:
            return values

        def decode(one):
            image = image_files.decode(one)
            # A picture that was turned upright may have another shape, and an animation has transparency.
            image = tf.cond(tf.reduce_all(tf.shape(image) == field.shape), lambda: image,
                            lambda: tf.cast(tf.round(fit(image[None], field.shape)[0]), tf.uint8))
            return tf.ensure_shape(image, field.shape)
        images = tf.map_fn(decode, values, fn_output_signature=tf.TensorSpec(field.shape, tf.uint8))
        return tf.ensure_shape(images, [values.shape[0], *field.shape])


def open_tfds(name, data_dir=None, tried=''):
    """tried: what the caller has looked for already, for the message."""
    builder = _builder(name, data_dir)
    if tfds_questions.are_questions(builder.info.features):
        _check_train(_prepared(builder, lambda split: None, tried))
        return tfds_questions.open_questions(name, builder)
    keys, fields, parts = convert_fields(builder.info)
    sources = _prepared(builder, lambda split: PreparedSplit(builder, split, keys, fields, parts), tried)
    for boxes in [name for name, field in fields.items() if isinstance(field, Boxes)]:
        most = max(1, *(source.most_boxes(boxes) for source in sources.values()))
        fields[boxes] = dataclasses.replace(fields[boxes], most=most)      # of all splits, which share `fields`
    return Dataset(name, *_three_splits(sources, fields), fields=fields,
                   origin=f'TensorFlow Datasets in {builder.data_dir}')


def convert_fields(info):
    """({our name: TFDS's key}, {our name: kind of field}, {key: what tfds_objects needs to decode boxes or a mask}) of
    all features that there is a kind for.

    A pair that TFDS calls supervised gets the names source and target where both are texts (translations); any other
    field keeps TFDS's name.
    """
    import tensorflow_datasets as tfds
    features, keys, fields, parts = info.features, {}, {}, {}
    pair = info.supervised_keys or ()
    translation = isinstance(features, tfds.features.Translation) and len(pair) == 2
    for key, feature in features.items() if hasattr(features, 'items') else ():
        if translation and key in pair:
            name, field = ('source', 'target')[pair.index(key)], Text(key)
        elif found := tfds_objects.boxes_field(feature) or tfds_objects.mask_field(info.name, key, feature):
            name, (field, parts[key]) = key, found
        elif isinstance(feature, tfds.features.Image) and feature.np_dtype == np.uint8 and len(feature.shape) == 3:
            name, field = key, Image(tuple(size or 0 for size in feature.shape[:2]) + (feature.shape[2] or 3,))
        elif isinstance(feature, tfds.features.ClassLabel):
            name, field = key, Label(tuple(feature.int2str(i) for i in range(feature.num_classes)))
        elif isinstance(feature, tfds.features.Text):
            name, field = key, Text()
        elif type(feature) in (tfds.features.Tensor, tfds.features.Scalar) and _is_number(feature):
            name, field = key, Vector(feature.shape[0]) if feature.shape else Number()
        else:
            continue
        keys[name], fields[name] = key, field
    if not any(isinstance(field, Image) for field in fields.values()):      # then nothing gives the size of boxes
        fields = {name: field for name, field in fields.items() if not isinstance(field, Boxes)}
    return keys, fields, parts


def _is_number(feature):
    """Whether it is a number, or a vector of a fixed size."""
    numeric = np.issubdtype(feature.np_dtype, np.integer) or np.issubdtype(feature.np_dtype, np.floating)
    return numeric and len(feature.shape) < 2 and None not in feature.shape


def _builder(name, data_dir):
    try:
        import tensorflow_datasets as tfds
        known = tfds.list_builders(with_community_datasets=False)
    except Exception as error:             # of many types: not installed, or built for another protobuf
        raise Unavailable(f'TensorFlow Datasets cannot be imported ({_short(error)}): pip install -e ".[tfds]"',
                          known=[]) from None
    try:
        return tfds.builder(name, data_dir=os.path.expanduser(data_dir) if data_dir else None)
    except Exception as error:             # of many types: no such name, no such config, a name it cannot parse
        own = name.split('/')[0].split(':')[0]
        if own not in known:
            raise Unavailable(f'tensorflow_datasets {tfds.__version__} has none of that name', known) from None
        configs = ', '.join(tfds.builder_cls(own).builder_configs) or 'none'
        raise UserError(f'`dataset` names no version or configuration of {own} in tensorflow_datasets '
                        f'{tfds.__version__}. Received: dataset={name!r} (configurations: {configs})') from error


def _prepared(builder, open_split, tried):
    """Downloads and prepares what is not there yet, then opens all splits. open_split: name -> source."""
    try:
        with _quiet():
            _download_and_prepare(builder)
            if builder.info.file_format.value != 'tfrecord':
                raise ValueError(f'it is prepared there as {builder.info.file_format.value}, not as tfrecord')
            sources = {split: open_split(split) for split in builder.info.splits}
    except Exception as error:             # of many types: network, checksum, disk, manual download, other file format
        looked = f'{tried}; ' if tried else ''
        raise Unavailable(f'`dataset` {builder.name} could not be had: {looked}looked in {builder.data_dir} and '
                          f'tried to prepare it there: {_short(error)}') from None
    return sources


def _download_and_prepare(builder):
    from tensorflow_datasets.core.download import downloader
    downloader.MAX_RETRIES = RETRIES
    try:
        builder.download_and_prepare()
    except Exception:
        if not Path(builder.data_dir).exists():     # else another process of this run was first
            raise
        builder.info.read_from_directory(builder.data_dir)


def _three_splits(sources, fields):
    _check_train(sources)
    train, held_out = sources['train'], {name: sources.get(name) for name in ('validation', 'test')}
    if held_out['test'] and _is_secret(held_out['test'], fields):
        held_out['test'] = None
    tenth = max(1, min(train.num_examples // 10, CARVED))
    sizes = [0 if source else tenth for source in held_out.values()]
    rest, *carved = split_indices(train.num_examples, *sizes)
    return (Subset(train, rest) if any(sizes) else train,
            *(source or Subset(train, part) for source, part in zip(held_out.values(), carved)))


def _check_train(splits):
    if 'train' not in splits:
        raise UserError(f'`dataset` must have a split train. Received: {", ".join(splits) or "none"}')


def _is_secret(test, fields):
    """imagenet2012 and glue keep their test labels secret: all are -1. coco and voc/2012 give no boxes."""
    boxes = [name for name, field in fields.items() if isinstance(field, Boxes)]
    if boxes:
        some = test.gather(tf.range(min(test.num_examples, SOUGHT), dtype=tf.int64), boxes)
        return not any(tf.reduce_any(values[..., 4] >= 0) for values in some.values())
    return tf.reduce_any(test.gather(tf.range(1, dtype=tf.int64)).get('label', 0) < 0)


@contextlib.contextmanager
def _quiet():
    """Progress bars and log lines are for a terminal."""
    if sys.stderr.isatty():
        yield
        return
    import tensorflow_datasets as tfds
    tfds.disable_progress_bar()
    logging.getLogger('urllib3').setLevel(logging.ERROR)     # its threads may outlive a failure
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):
            yield
    finally:
        logging.disable(before)


def _short(error):
    """One line for an exception of a library: its type, and the host or the beginning of its first line."""
    host = re.search(r"host='([^']+)'", str(error))
    line = f'no connection to {host[1]}' if host else (str(error).strip() or 'no message').splitlines()[0][:200]
    return f'{type(error).__name__}: {line}'
