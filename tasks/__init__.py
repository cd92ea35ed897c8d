"""Tasks by name."""

from errors import lookup
from tasks.classification import classification
from tasks.detection import Detection
from tasks.masked_lm import MaskedLM
from tasks.question_answering import QuestionAnswering
from tasks.regression import Regression
from tasks.segmentation import Segmentation
from tasks.translation import Translation

TASKS = {
    'classification': classification,
    'detection': Detection,
    'masked_lm': MaskedLM,
    'question_answering': QuestionAnswering,
    'regression': Regression,
    'segmentation': Segmentation,
    'translation': Translation,
}


def make(name, settings, dataset, data, tokenizer=None):
    """The task of this name on a data set.

    Args:
        settings, data: the recipe's sections of the task and of the data.
        tokenizer: {file name: bytes} of the run's own tokenizer, if it has one.

    Raises:
        UserError: the data set lacks a field that the task needs, or a setting cannot work.
    """
    return lookup(TASKS, name, 'task')(settings, dataset, data, tokenizer)
