"""fashion_mnist: 70,000 grey 28x28 images of ten kinds of clothing (arXiv:1708.07747).

Splits: 55,000 train and 5,000 validation, a fixed permutation of the official training part; test is the official
10,000. Read from the four IDX files, if they are in --data_dir or where Debian's package dataset-fashion-mnist puts
them, into memory; else from a folder of images fashion_mnist/ in --data_dir; else by TensorFlow Datasets, whose
training part has another order, so another validation split.
"""

import gzip
from pathlib import Path

import numpy as np

from data.dataset import Dataset, Image, Label
from data.source import Subset, Tensors, split_indices
from data.sources.files import open_folder
from data.sources.folders import own_folder
from data.sources.tfds import open_tfds
from errors import UserError

DEBIAN = '/usr/share/datasets/fashion-mnist'
VALIDATION = 5_000
CLASSES = ['T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat', 'Sandal', 'Shirt', 'Sneaker', 'Bag', 'Ankle boot']
FILES = [f'{part}-{kind}-ubyte.gz' for part in ('train', 't10k') for kind in ('images-idx3', 'labels-idx1')]


def open_fashion_mnist(data_dir=None):
    folder = _find_folder(data_dir)
    if folder is None:
        tried = f'looked for {FILES[0]} and its three companions in {", ".join(map(str, _folders(data_dir)))}'
        own = own_folder('fashion_mnist', data_dir)
        return open_folder('fashion_mnist', own) if own else open_tfds('fashion_mnist', data_dir, tried)
    train_images, train_labels, test_images, test_labels = (read_idx(folder / name) for name in FILES)
    everything = Tensors(image=train_images[..., None], label=train_labels.astype(np.int32))     # [60000, 28, 28, 1]
    train, validation, _ = split_indices(len(train_images), VALIDATION, 0)
    test = Tensors(image=test_images[..., None], label=test_labels.astype(np.int32))
    return Dataset('fashion_mnist', Subset(everything, train), Subset(everything, validation), test,
                   fields={'image': Image((28, 28, 1)), 'label': Label(tuple(CLASSES))}, origin=str(folder))


def _folders(data_dir):
    own = [Path(data_dir).expanduser() / name for name in ('', 'fashion-mnist', 'fashion_mnist')] if data_dir else []
    return [*own, Path(DEBIAN)]


def _find_folder(data_dir):
    return next((folder for folder in _folders(data_dir) if all((folder / name).is_file() for name in FILES)), None)


def read_idx(path):
    """The array in a gzipped IDX file of unsigned bytes: two zeros, 8, the rank, big-endian sizes, the bytes."""
    try:
        with gzip.open(path) as file:
            content = file.read()
        rank = content[3]
        shape = np.frombuffer(content, '>i4', count=rank, offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError) as error:    # not gzip, cut short, not IDX
        raise UserError(f'{path} is damaged ({error}): delete or replace it') from None
