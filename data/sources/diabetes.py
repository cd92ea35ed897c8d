"""diabetes: 442 patients, 10 measurements each, and the disease's progression after a year (scikit-learn; Efron 2004).

A regression set. Splits: 310 train, 44 validation, 88 test. The target is standardised with the training split's mean
and deviation, so an `mse` of 1 is that of always answering the mean.
"""

import numpy as np
from sklearn import datasets

from data.dataset import Dataset, Number, Vector
from data.source import Subset, Tensors, split_indices

VALIDATION, TEST = 44, 88


def open_diabetes(data_dir=None):
    vectors, target = datasets.load_diabetes(return_X_y=True)
    parts = split_indices(len(vectors), VALIDATION, TEST)
    mean, deviation = np.mean(target[parts[0]]), np.std(target[parts[0]])
    everything = Tensors(vector=vectors.astype(np.float32), target=((target - mean) / deviation).astype(np.float32))
    return Dataset('diabetes', *(Subset(everything, part) for part in parts),
                   fields={'vector': Vector(vectors.shape[1]), 'target': Number()})
