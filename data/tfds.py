"""Image classification and translation sets of TensorFlow Datasets, by name: cifar10, wmt14_translate/de-en, ...

Prepared once by TFDS, as TFRecord files, or used as they lie in --data_dir; read by index (see records.py), decoded in
the graph. Files that you downloaded by hand belong into DATA_DIR/downloads/manual/.
A split that the dataset lacks is a fixed tenth of train (at most 5,000); splits never overlap.
"""

import contextlib
import hashlib
import logging
import os
import re
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from data.features import ImageFeatures
from data.images import decode_images
from data.records import open_records
from data.source import Subset, split_indices
from errors import UserError

CARVED = 5_000
RETRIES = 3     # TFDS's own number keeps a machine without a network waiting for minutes


class Unavailable(UserError):
    """The dataset cannot be had. known: the names that TensorFlow Datasets has, if `name` is not one of them."""

    def __init__(self, message, known=None):
        super().__init__(message)
        self.known = known


class PreparedSplit:
    """A split as TFDS prepared it, read by index."""

    def __init__(self, builder, split):
        self.num_examples, self._records = open_records([str(path) for path in builder.info.splits[split].filepaths])
        name = f'{builder.info.full_name} {split} {self.num_examples}'          # the full name has the version
        self.fingerprint = hashlib.sha256(name.encode()).hexdigest()[:16]
        self._source, self._target = builder.info.supervised_keys

    def _parse(self, indices, target_type=tf.string):
        types = {self._source: tf.string, self._target: target_type}
        parsed = tf.io.parse_example(self._records(indices),
                                     {key: tf.io.FixedLenFeature([], dtype) for key, dtype in types.items()})
        return parsed[self._source], parsed[self._target]


class PreparedTexts(PreparedSplit):
    def gather(self, indices):
        source, target = self._parse(indices)
        return {'source': source, 'target': target}


class PreparedImages(PreparedSplit):
    """Images of one size stay uint8; of several, each is resized to image_shape."""

    def __init__(self, builder, split, image_shape):
        super().__init__(builder, split)
        self._own_shape, self._image_shape = builder.info.features[self._source].shape, image_shape

    def gather(self, indices):
        encoded, labels = self._parse(indices, tf.int64)
        return {'image': self._decode(encoded), 'label': labels}

    def _decode(self, encoded):
        if None in self._own_shape:
            return decode_images(encoded, self._image_shape)

        def decode(one):
            return tf.ensure_shape(tf.io.decode_image(one, expand_animations=False), self._own_shape)
        images = tf.map_fn(decode, encoded, fn_output_signature=tf.TensorSpec(self._own_shape, tf.uint8))
        return tf.ensure_shape(images, [encoded.shape[0], *self._own_shape])


def open_tfds(name, image_shape, data_dir=None, text_features=None, tried=''):
    """tried: what the caller has looked for already, for the message."""
    builder = _builder(name, data_dir)
    if _is_translation(builder):
        splits = _prepared(builder, lambda split: PreparedTexts(builder, split), tried)
        _, target_language = builder.info.supervised_keys
        return (*splits, text_features(splits[0], target_language))
    image, label = _image_and_label(builder)
    height, width, channels = image.shape
    shape = image_shape((height or 0, width or 0, channels or 3))
    if not all(shape):
        raise UserError(f'`image_size` is needed for dataset={name}: its images vary in size. Received: image_size=0')
    splits = _prepared(builder, lambda split: PreparedImages(builder, split, shape), tried)
    return (*splits, ImageFeatures(shape, [label.int2str(i) for i in range(label.num_classes)]))


def _builder(name, data_dir):
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise Unavailable(f'TensorFlow Datasets cannot be imported ({_short(error)}): pip install -e ".[tfds]"',
                          known=[]) from None
    known = tfds.list_builders(with_community_datasets=False)
    try:
        return tfds.builder(name, data_dir=os.path.expanduser(data_dir) if data_dir else None)
    except Exception as error:             # of many types: no such name, no such config, a name it cannot parse
        own = name.split('/')[0].split(':')[0]
        if own not in known:
            raise Unavailable(f'tensorflow_datasets {tfds.__version__} has none of that name', known) from None
        configs = ', '.join(tfds.builder_cls(own).builder_configs) or 'none'
        raise UserError(f'`dataset` names no version or configuration of {own} in tensorflow_datasets '
                        f'{tfds.__version__}. Received: dataset={name!r} (configurations: {configs})') from error


def _is_translation(builder):
    import tensorflow_datasets as tfds
    return isinstance(builder.info.features, tfds.features.Translation) and bool(builder.info.supervised_keys)


def _image_and_label(builder):
    import tensorflow_datasets as tfds
    keys, features = builder.info.supervised_keys, builder.info.features
    pair = [features[key] if key in features else None for key in keys] if keys and len(keys) == 2 else [None, None]
    if not (isinstance(pair[0], tfds.features.Image) and pair[0].np_dtype == np.uint8
            and isinstance(pair[1], tfds.features.ClassLabel)):
        raise UserError(f'`dataset` {builder.info.full_name} is not a set of (image, label), and no translation: of '
                        f'TensorFlow Datasets only those can be used. Received: supervised keys {keys}')
    return pair


def _prepared(builder, open_split, tried):
    """Downloads and prepares what is not there yet, then opens the three splits. open_split: name -> source."""
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
    return _three_splits(sources)


def _download_and_prepare(builder):
    from tensorflow_datasets.core.download import downloader
    downloader.MAX_RETRIES = RETRIES
    try:
        builder.download_and_prepare()
    except Exception:
        if not Path(builder.data_dir).exists():     # else another process of this run was first
            raise
        builder.info.read_from_directory(builder.data_dir)


def _three_splits(sources):
    if 'train' not in sources:
        raise UserError(f'`dataset` must have a split train. Received: {", ".join(sources) or "none"}')
    train, held_out = sources['train'], {name: sources.get(name) for name in ('validation', 'test')}
    if held_out['test'] and _is_secret(held_out['test']):
        held_out['test'] = None
    tenth = max(1, min(train.num_examples // 10, CARVED))
    sizes = [0 if source else tenth for source in held_out.values()]
    rest, *carved = split_indices(train.num_examples, *sizes)
    return (Subset(train, rest) if any(sizes) else train,
            *(source or Subset(train, part) for source, part in zip(held_out.values(), carved)))


def _is_secret(test):
    """imagenet2012 keeps its test labels secret: all are -1."""
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
