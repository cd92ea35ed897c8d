"""Tasks by name."""

from errors import lookup
from tasks.classification import Classification
from tasks.regression import Regression
from tasks.translation import Translation

TASKS = {'classification': Classification, 'regression': Regression, 'translation': Translation}


def make_task(name, features, label_smoothing=0.):
    return lookup(TASKS, name, 'task')(features, label_smoothing=label_smoothing)
