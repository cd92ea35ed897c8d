"""Tasks on data sets, with the sections of a recipe that they need and no more."""

from types import SimpleNamespace

import tasks
from data import open_dataset
from data.dataset import Dataset, Text
from data.source import Tensors


def data_settings(**changes):
    return SimpleNamespace(**{**dict(image_size=0, channels=0, augment='none', tokenizer='', vocabulary_size=0,
                                     max_length=0, packing=False), **changes})


def task_settings(**changes):
    return SimpleNamespace(**{**dict(label_smoothing=0., beam_size=1, length_penalty=0.6), **changes})


def task_of(name, dataset, files=None, settings=None, **data):
    return tasks.make(name, task_settings(**settings or {}), dataset, data_settings(**data), files)


def opened(name, task='classification', data_dir=None, **settings):
    """(Dataset, Task) of a data set's name."""
    dataset = open_dataset(name, data_dir)
    return dataset, task_of(task, dataset, **settings)


def one_source(everything, name='made', /, **fields):
    """A data set whose three splits are one source."""
    return Dataset(name, everything, everything, everything, fields=fields)


def pairs_dataset(sources, targets, **text):
    """A data set of sentence pairs."""
    return one_source(Tensors(source=sources, target=targets), source=Text(**text), target=Text(**text))
