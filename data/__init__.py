"""Datasets by name. `open_dataset` gives the three splits as sources, and the features that turn them into batches."""

import dataclasses
import difflib
from typing import Any

from data.catalogs import open_gettext
from data.diabetes import open_diabetes
from data.digits import open_digits
from data.fashion_mnist import open_fashion_mnist
from data.image_folder import find_folder, open_image_folder
from data.number_words import open_number_words
from data.parallel import holds_texts, open_parallel
from data.prepared import prepare
from data.subwords import subword_features
from data.tfds import Unavailable, open_tfds
from errors import UserError


@dataclasses.dataclass(frozen=True)
class Dataset:
    name: str
    train: Any        # sources, see source.py
    validation: Any
    test: Any
    features: Any     # see features.py
    packed: Any = None      # the training split in rows of several examples, see packing.py

    @property
    def rows(self):
        """What a training step's batches are taken from."""
        return self.packed or self.train

    def split(self, name):
        return {'train': self.train, 'validation': self.validation, 'test': self.test}[name]

    @property
    def fingerprint(self):
        return '-'.join(source.fingerprint for source in (self.rows, self.validation, self.test))

    @property
    def catalogs(self):
        """What a corpus of messages was read from, a line a catalog; else empty."""
        return getattr(self.train, 'catalogs', ())

    def __str__(self):
        sizes = (f'{self.name}: {self.train.num_examples:,} train, {self.validation.num_examples:,} validation, '
                 f'{self.test.num_examples:,} test')
        if self.packed:
            sizes += f', packed into {self.packed.num_examples:,} rows, {self.packed.padding_share:.1%} padding'
        return f'{sizes}, from {len(self.catalogs)} catalogs, {self.fingerprint}' if self.catalogs else sizes


# name -> function(image_shape=, text_features=, data_dir=) -> (train, validation, test, features).
DATASETS = {'digits': open_digits, 'diabetes': open_diabetes, 'number_words': open_number_words,
            'fashion_mnist': open_fashion_mnist}
FOLDER, GETTEXT = 'files/', 'gettext/'      # then a path or a language; other names are TensorFlow Datasets'
NO_NETWORK = ('digits, diabetes, number_words, gettext/LANG, files/FOLDER, and fashion_mnist with Debian\'s package '
              'dataset-fashion-mnist')


def open_dataset(name, image_size=0, channels=0, data_dir=None, vocabulary_size=0, max_length=0, tokenizer=None):
    """Opens a dataset.

    Args:
        image_size, channels: of images; 0 keeps the dataset's own.
        vocabulary_size, max_length: tokens of a dataset of texts that has no tokeniser of its own, and the longest
            side in tokens; 0 takes the defaults of subwords.py.
        tokenizer: bytes of such a dataset's tokeniser, as its `features.tokenizer_model` gave them; None trains one
            on the training split.
    """

    def image_shape(own):
        height, width, own_channels = own
        return (image_size or height, image_size or width, channels or own_channels)

    def text_features(train, target_language=''):
        return subword_features(train, vocabulary_size, max_length, tokenizer, target_language)

    options = {'image_shape': image_shape, 'text_features': text_features, 'data_dir': data_dir}
    try:
        if name in DATASETS:
            opened = DATASETS[name](**options)
        elif name.startswith(GETTEXT):
            opened = open_gettext(name.removeprefix(GETTEXT), **options)
        elif name.startswith(FOLDER):
            opened = _open_files(name.removeprefix(FOLDER), **options)
        else:
            opened = open_tfds(name, **options)
    except Unavailable as error:
        raise UserError(_explain(name, error)) from None
    *splits, features = opened
    return Dataset(name, *(prepare(source, features) for source in splits), features)


def _open_files(path, image_shape, text_features, data_dir):
    folder = find_folder(path, data_dir)
    if holds_texts(folder):
        return open_parallel(folder, text_features)
    return open_image_folder(path, image_shape=image_shape, data_dir=data_dir)


def _explain(name, error):
    if error.known is None or name in DATASETS:
        return f'{error}. These need no network: {NO_NETWORK}'
    close = difflib.get_close_matches(name, [*DATASETS, *error.known], n=1)
    hint = f'. Did you mean {close[0]}?' if close else ''
    return (f'`dataset` must be one of {", ".join(DATASETS)}, gettext/LANG, files/FOLDER, or a name of TensorFlow '
            f'Datasets. Received: dataset={name!r} ({error}){hint}')
