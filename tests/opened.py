"""Tasks on data sets, with the sections of a recipe that they need and no more."""

import settings
import tasks
from data import open_dataset
from data.dataset import Dataset, Image, Text
from data.source import Tensors
from settings.recipe import SECTIONS


def task_of(name, dataset, files=None, options=None, **data):
    """A task on a data set. options: fields of the task's section. data: fields of the section of data."""
    section = SECTIONS['task'].get(name, settings.Classification)(**options or {})
    return tasks.make(name, section, dataset, _data_section(name, dataset)(dataset.name, **data), files)


def _data_section(task, dataset):
    if task == 'translation':
        return settings.TextPairs
    if task == 'question_answering':
        return settings.Questions
    if dataset.of_kind(Image):
        return settings.Images
    return settings.Texts if dataset.of_kind(Text) else settings.Vectors


def opened(name, task='classification', data_dir=None, **data):
    """(Dataset, Task) of a data set's name."""
    dataset = open_dataset(name, data_dir)
    return dataset, task_of(task, dataset, **data)


def one_source(everything, name='made', /, **fields):
    """A data set whose three splits are one source."""
    return Dataset(name, everything, everything, everything, fields=fields)


def pairs_dataset(sources, targets, **text):
    """A data set of sentence pairs."""
    return one_source(Tensors(source=sources, target=targets), source=Text(**text), target=Text(**text))
