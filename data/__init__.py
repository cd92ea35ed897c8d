"""Datasets by name. `open_dataset` gives the three splits as sources, and the features that turn them into batches."""

import dataclasses
import difflib
from typing import Any

from data.diabetes import open_diabetes
from data.digits import open_digits
from data.fashion_mnist import open_fashion_mnist
from data.image_folder import open_image_folder
from data.number_words import open_number_words
from data.prepared import prepare
from data.tfds import Unavailable, open_tfds
from errors import UserError


@dataclasses.dataclass(frozen=True)
class Dataset:
    name: str
    train: Any        # sources, see source.py
    validation: Any
    test: Any
    features: Any     # see features.py

    def split(self, name):
        return {'train': self.train, 'validation': self.validation, 'test': self.test}[name]

    @property
    def fingerprint(self):
        return '-'.join(self.split(name).fingerprint for name in ('train', 'validation', 'test'))

    def __str__(self):
        return (f'{self.name}: {self.train.num_examples:,} train, {self.validation.num_examples:,} validation, '
                f'{self.test.num_examples:,} test')


# name -> function(image_shape=, data_dir=) -> (train, validation, test, features).
DATASETS = {'digits': open_digits, 'diabetes': open_diabetes, 'number_words': open_number_words,
            'fashion_mnist': open_fashion_mnist}
FOLDER = 'files/'     # then a path; every other name is looked up in TensorFlow Datasets
NO_NETWORK = ('digits, diabetes, number_words, files/FOLDER, and fashion_mnist with Debian\'s package '
              'dataset-fashion-mnist')


def open_dataset(name, image_size=0, channels=0, data_dir=None):
    """Opens a dataset. image_size and channels 0 keep the dataset's own."""

    def image_shape(own):
        height, width, own_channels = own
        return (image_size or height, image_size or width, channels or own_channels)

    try:
        if name in DATASETS:
            opened = DATASETS[name](image_shape=image_shape, data_dir=data_dir)
        elif name.startswith(FOLDER):
            opened = open_image_folder(name.removeprefix(FOLDER), image_shape=image_shape, data_dir=data_dir)
        else:
            opened = open_tfds(name, image_shape=image_shape, data_dir=data_dir)
    except Unavailable as error:
        raise UserError(_explain(name, error)) from None
    *splits, features = opened
    return Dataset(name, *(prepare(source, features) for source in splits), features)


def _explain(name, error):
    if error.known is None or name in DATASETS:
        return f'{error}. These need no network: {NO_NETWORK}'
    close = difflib.get_close_matches(name, [*DATASETS, *error.known], n=1)
    hint = f'. Did you mean {close[0]}?' if close else ''
    return (f'`dataset` must be one of {", ".join(DATASETS)}, files/FOLDER, or a name of TensorFlow Datasets. '
            f'Received: dataset={name!r} ({error}){hint}')
