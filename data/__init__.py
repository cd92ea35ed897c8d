"""Datasets by name. `open_dataset` gives three splits of raw examples and the kinds of their fields.

A name is looked for in this order: the sets that the project brings, gettext/LANG, files/FOLDER; then a folder
DATA_DIR/NAME in one of the layouts of data/sources/files.py; then TensorFlow Datasets.
"""

import difflib
import os
from pathlib import Path

from data.dataset import Dataset
from data.sources.catalogs import open_gettext
from data.sources.diabetes import open_diabetes
from data.sources.digits import open_digits
from data.sources.fashion_mnist import open_fashion_mnist
from data.sources.files import open_folder
from data.sources.folders import find_folder, own_folder
from data.sources.number_words import open_number_words
from data.sources.pydoc import open_pydoc
from data.sources.scenes import open_digit_scenes, open_fashion_scenes
from data.sources.tfds import Unavailable, open_tfds
from errors import UserError

# name -> function(data_dir) -> Dataset
DATASETS = {
    'digits': open_digits,
    'diabetes': open_diabetes,
    'number_words': open_number_words,
    'pydoc': open_pydoc,
    'fashion_mnist': open_fashion_mnist,
    'digit_scenes': open_digit_scenes,
    'fashion_scenes': open_fashion_scenes,
}
FOLDER, GETTEXT = 'files/', 'gettext/'      # then a path or a language
VARIABLE = 'CONGRUENT_DATA'                 # the environment's `data_dir`
NO_NETWORK = ('digits, diabetes, number_words, pydoc, digit_scenes, gettext/LANG, files/FOLDER, and fashion_mnist and '
              'fashion_scenes with Debian\'s package dataset-fashion-mnist')


def open_dataset(name, data_dir=None):
    """Opens a dataset.

    Args:
        name: see the module. data_dir: folder of datasets; by default that of the environment variable CONGRUENT_DATA.

    Raises:
        UserError: there is no such dataset, or it cannot be had or read.
    """
    data_dir = data_dir or os.environ.get(VARIABLE) or None
    if data_dir and not Path(data_dir).expanduser().is_dir():
        raise UserError(f'`data_dir` (or {VARIABLE}) must be a folder that exists. Received: data_dir={data_dir!r}')
    try:
        if name in DATASETS:
            return DATASETS[name](data_dir)
        if name.startswith(GETTEXT):
            return open_gettext(name.removeprefix(GETTEXT), data_dir)
        if name.startswith(FOLDER):
            return open_folder(name, find_folder(name.removeprefix(FOLDER), data_dir))
        if own := own_folder(name, data_dir):
            return open_folder(name, own)
        tried = f'{Path(data_dir).expanduser() / name} is no folder of data' if data_dir else ''
        return open_tfds(name, data_dir, tried)
    except Unavailable as error:
        raise UserError(_explain(name, error)) from None


def _explain(name, error):
    if error.known is None or name in DATASETS:
        return f'{error}. These need no network: {NO_NETWORK}'
    close = difflib.get_close_matches(name, [*DATASETS, *error.known], n=1)
    hint = f'. Did you mean {close[0]}?' if close else ''
    return (f'`dataset` must be one of {", ".join(DATASETS)}, gettext/LANG, files/FOLDER, a folder of `data_dir` (or '
            f'{VARIABLE}), or a name of TensorFlow Datasets. Received: dataset={name!r} ({error}){hint}')
