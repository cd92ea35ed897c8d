"""digits: 1,797 real handwritten digits, 8x8 grey, in the scikit-learn package (UCI Optical Recognition, test part).

Splits: 1,347 train, 90 validation, 360 test, disjoint, fixed. A model reads them as images, or flattens them to a
vector, or takes them row by row as a sequence.
"""

import numpy as np
from sklearn import datasets

from data.dataset import Dataset, Image, Label
from data.source import Subset, Tensors, split_indices

VALIDATION, TEST = 90, 360


def open_digits(data_dir=None):
    digits = datasets.load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]       # 17 grey levels -> [1797, 8, 8, 1]
    everything = Tensors(image=images, label=digits.target.astype(np.int32))
    splits = (Subset(everything, part) for part in split_indices(len(images), VALIDATION, TEST))
    names = tuple(str(name) for name in digits.target_names)
    return Dataset('digits', *splits, fields={'image': Image((8, 8, 1)), 'label': Label(names)})
