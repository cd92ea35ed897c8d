"""Tasks by name."""

from errors import lookup
from tasks.classification import Classification
from tasks.regression import Regression
from tasks.translation import Translation

TASKS = {'classification': Classification, 'regression': Regression, 'translation': Translation}


def make_task(name, features, **settings):
    """The task of this name; of the settings it takes those that it knows."""
    kind = lookup(TASKS, name, 'task')
    return kind(features, **{key: value for key, value in settings.items() if key in kind.settings})
