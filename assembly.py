"""Puts the rooms together: a recipe gives a dataset, a task and a model; so does the folder of a run."""

import contextlib
import math

import keras
import tensorflow as tf

import data
import models
import tasks
from errors import RunError, UserError
from tasks import serving
from training.checkpoint import Checkpoints
from training.state import TrainState, inference_arrays
from workdir import Workdir

EXPORT_CHECKED = 64     # test examples on which an export is compared with its model
POLICIES = {'float32': 'float32', 'bfloat16': 'mixed_bfloat16', 'float16': 'mixed_float16'}


def open_data(recipe, data_dir=''):
    """Returns (dataset, task)."""
    dataset = data.open_dataset(recipe.dataset, recipe.image_size, recipe.channels, data_dir or None)
    return dataset, tasks.make_task(recipe.task, dataset.features, recipe.label_smoothing)


def build_model(recipe, task):
    """Builds the model under the current strategy's scope, with the recipe's precision and the dataset's sizes.

    The weights follow from the recipe's seed alone.
    """
    keras.utils.set_random_seed(recipe.seed)
    with _policy(POLICIES[recipe.precision]):
        return models.build(recipe.model, task.sizes, size=recipe.size or None,
                            dropout=None if recipe.dropout < 0 else recipe.dropout)


def make_deterministic():
    """Equal inputs give equal bits (E2), in this process, from now on."""
    tf.config.experimental.enable_op_determinism()


def training_steps(recipe, dataset):
    return recipe.steps or math.ceil(recipe.epochs * dataset.train.num_examples / recipe.batch_size)


def load(path, checkpoint='newest', data_dir=''):
    """A trained model, without a strategy, from a run's folder.

    Args:
        checkpoint: newest, best, or a step number.

    Returns:
        (recipe, dataset, task, model, step)
    """
    workdir = Workdir(path)
    recipe = workdir.recipe()
    dataset, task = open_data(recipe, data_dir)
    arrays, metadata = _find(Checkpoints(workdir.checkpoints), checkpoint)
    model = build_model(recipe, task)
    TrainState(model).restore(inference_arrays(arrays))
    return recipe, dataset, task, model, metadata['step']


def export(folder, model, reference, dataset, task):
    """Writes `model`, built without a strategy, as a SavedModel. Returns its largest difference from `reference`."""
    serving.export_saved_model(model, task, folder)
    examples = dataset.test.gather(tf.range(min(EXPORT_CHECKED, dataset.test.num_examples), dtype=tf.int64))
    return serving.max_abs_difference(folder, reference, task, dataset.features.raw(examples))


def export_run(workdir, trainer, dataset):
    """Exports a run's newest checkpoint, rebuilt without a strategy, and compares it with the trained model."""
    arrays, _ = trainer.checkpoints.newest()
    model = build_model(trainer.recipe, trainer.task)
    TrainState(model).restore(inference_arrays(arrays))
    with trainer.state.averaged():
        return export(workdir.export, model, trainer.model, dataset, trainer.task)


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
        raise RunError(f'{broken} cannot be read as an image any more; mend or remove it') from None


def _find(checkpoints, which):
    if which in ('newest', 'best'):
        found = checkpoints.newest() if which == 'newest' else checkpoints.best()
    else:
        found = checkpoints.at(int(which)) if str(which).isdigit() else None
    if found is None:
        raise UserError(f'`checkpoint` must be newest, best or a step of {checkpoints.folder} '
                        f'({", ".join(map(str, checkpoints.steps())) or "which holds none"}). '
                        f'Received: checkpoint={which!r}')
    return found


@contextlib.contextmanager
def _policy(name):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
