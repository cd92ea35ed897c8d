"""A recipe's dataset, task, batches, model and trainer."""

import contextlib
import math

import keras
import tensorflow as tf

import data
import models
import tasks
from data import pipeline
from errors import RunError
from training.micro_batches import pieces_of_a_replica
from training.trainer import Trainer

POLICIES = {'float32': 'float32', 'bfloat16': 'mixed_bfloat16', 'float16': 'mixed_float16'}


def open_data(recipe, data_dir='', tokenizer=None):
    """Returns (dataset, task). tokenizer: {file name: bytes} that a run of this recipe keeps; else made from data."""
    dataset = data.open_dataset(recipe.data.dataset, data_dir or None)
    return dataset, tasks.make(recipe.task.kind, recipe.task, dataset, recipe.data, tokenizer)


def build_model(recipe, task):
    """Builds the model under the current strategy's scope, with the recipe's precision and the dataset's sizes.

    The weights follow from the recipe's seed alone.
    """
    keras.utils.set_random_seed(recipe.training.seed)
    choose_products(recipe.training.precision)
    with _policy(POLICIES[recipe.training.precision]):
        return models.build(recipe.model.kind, task.sizes, **recipe.model.options())


def choose_products(precision):
    """Whether GPUs may round the operands of float32 products to TensorFloat-32: not where the precision is float32.

    Beside bfloat16 and float16 it rounds no more than they do. Without a GPU nothing changes: a TPU's XLA looks at the
    same switch.
    """
    if tf.config.get_visible_devices('GPU'):
        tf.config.experimental.enable_tensor_float_32_execution(precision != 'float32')


class Batches:
    """The batches of a recipe: for the loop, for an evaluation, and for a report.

    Attributes:
        rows: of the training split. fingerprint: of all that a run reads.

    Raises:
        UserError: the batch cannot be divided over the replicas and micro-batches.
        RunError: a file of a small set, which is decoded here, is broken.
    """

    def __init__(self, recipe, dataset, task, replicas):
        self._training, self._dataset, self._task, self._replicas = recipe.training, dataset, task, replicas
        pipeline.per_replica(self._training.batch_size, replicas)
        pieces_of_a_replica(self._training.accumulate, replicas)
        with data_errors(dataset):
            self.rows = task.rows(dataset.train, training=True)
        self.fingerprint = '-'.join(part.fingerprint for part in (self.rows, dataset.validation, dataset.test))

    def training(self, start_step):
        """The dataset function of the steps from `start_step` on."""
        return pipeline.training_slices(self.rows, self._task.batch, batch_size=self._training.batch_size,
                                        seed=self._training.seed, start_step=start_step)

    def first(self, count):
        """(x, y, weights) of the first rows of step 0's batch, at most `count`."""
        return pipeline.first_rows(self.rows, self._task.batch, batch_size=self._training.batch_size,
                                   seed=self._training.seed, count=count)

    @property
    def spec(self):
        """What a replica is given in a step: nested TensorSpecs of (x, y, weights)."""
        return self.training(0)(tf.distribute.InputContext(num_replicas_in_sync=self._replicas)).element_spec

    @property
    def evaluation_spec(self):
        """The same in an evaluation: (x, y, weights, real)."""
        dataset_fn, *_ = self.evaluation('test')
        return dataset_fn(tf.distribute.InputContext(num_replicas_in_sync=self._replicas)).element_spec

    def evaluation(self, split):
        """(dataset function, number of global batches, source) of a split."""
        return evaluation_batches(self._task, self._dataset.split(split), self._training.batch_size)

    def examples(self, step):
        """The indices of the training examples, or rows of them, in a step's global batch, in order."""
        return pipeline.examples_of(self.rows, batch_size=self._training.batch_size, seed=self._training.seed,
                                    step=step)


def evaluation_batches(task, source, batch_size):
    """(dataset function, number of global batches, source) of a task's evaluation on a source."""
    rows = task.rows(source)
    return (pipeline.evaluation_slices(rows, task.batch, batch_size=batch_size),
            pipeline.evaluation_steps(rows, batch_size), source)


def make_trainer(recipe, rows, task, devices, workdir, jit='auto', deterministic=True):
    """Returns (Trainer, a line that says whether XLA compiles its step, and why)."""
    recipe = recipe.resolved(devices.hardware, devices.bfloat16)
    trainer = Trainer(recipe.training, devices, task, lambda: build_model(recipe, task), workdir=workdir.path, jit=jit,
                      deterministic=deterministic, total_steps=training_steps(recipe, rows), recipe=recipe.to_json())
    return trainer, f'XLA {"on" if trainer.jit else "off"}: {trainer.jit_reason}'


def training_steps(recipe, rows):
    training = recipe.training
    return training.steps or math.ceil(training.epochs * rows.num_examples / training.batch_size)


@contextlib.contextmanager
def data_errors(dataset):
    """Turns a failure of TensorFlow while it reads a file of the dataset into a line that names the file."""
    try:
        yield
    except tf.errors.OpError:
        sources = (dataset.train, dataset.validation, dataset.test)
        broken = next(filter(None, (source.find_unreadable() for source in sources
                                    if hasattr(source, 'find_unreadable'))), None)
        if broken is None:
            raise
        raise RunError(f'{broken} cannot be read as an image any more; fix or remove it') from None


@contextlib.contextmanager
def _policy(name):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
