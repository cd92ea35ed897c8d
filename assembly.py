"""Puts the rooms together: a recipe gives a dataset, a task and a model; so does the folder of a run."""

import contextlib
import dataclasses
import math

import keras
import tensorflow as tf

import data
import models
import tasks
from data import packing, pipeline
from errors import RunError, UserError
from tasks import serving
from training.checkpoint import Checkpoints
from training.jit import use_jit
from training.micro_batches import pieces_of_a_replica
from training.state import TrainState, inference_arrays
from training.trainer import Trainer
from workdir import Workdir

EXPORT_CHECKED = 64     # test examples on which an export is compared with its model
POLICIES = {'float32': 'float32', 'bfloat16': 'mixed_bfloat16', 'float16': 'mixed_float16'}


def open_data(recipe, data_dir='', tokenizer=None, training=True):
    """Returns (dataset, task).

    Args:
        tokenizer: bytes that a run of this recipe keeps; else it is made from the data.
        training: also packs the training split, where the recipe asks for it.
    """
    dataset = data.open_dataset(recipe.dataset, recipe.image_size, recipe.channels, data_dir or None,
                                vocabulary_size=recipe.vocabulary_size, max_length=recipe.max_length,
                                tokenizer=tokenizer)
    task = tasks.make_task(recipe.task, dataset.features, label_smoothing=recipe.label_smoothing,
                           beam_size=recipe.beam_size, length_penalty=recipe.length_penalty)
    if recipe.packing and task.features.kind != 'text':
        raise UserError(f'`packing` is for texts; this dataset gives {task.features.kind}s. Received: packing=True')
    if recipe.packing and training:
        dataset = dataclasses.replace(dataset, packed=packing.pack(dataset.train, dataset.features))
    return dataset, task


def build_model(recipe, task):
    """Builds the model under the current strategy's scope, with the recipe's precision and the dataset's sizes.

    The weights follow from the recipe's seed alone.
    """
    keras.utils.set_random_seed(recipe.seed)
    with _policy(POLICIES[recipe.precision]):
        return models.build(recipe.model, task.sizes, size=recipe.size or None,
                            dropout=None if recipe.dropout < 0 else recipe.dropout, norm=recipe.norm or None,
                            share_embeddings=recipe.share_embeddings or None)


class Batches:
    """The batches of a recipe: for the loop, for an evaluation, and for a report.

    Raises:
        UserError: the batch cannot be divided over the replicas and micro-batches.
    """

    def __init__(self, recipe, dataset, task, replicas):
        self._recipe, self._dataset, self._features, self._replicas = recipe, dataset, task.features, replicas
        pipeline.per_replica(recipe.batch_size, replicas)
        pieces_of_a_replica(recipe.accumulate, replicas)

    def training(self, start_step):
        """The dataset function of the steps from `start_step` on."""
        recipe = self._recipe
        return pipeline.training_slices(self._dataset.rows, self._features, batch_size=recipe.batch_size,
                                        seed=recipe.seed, transform=recipe.augment, start_step=start_step)

    @property
    def spec(self):
        """What a replica is given in a step: nested TensorSpecs of (x, y, weights)."""
        return self.training(0)(tf.distribute.InputContext(num_replicas_in_sync=self._replicas)).element_spec

    def evaluation(self, split):
        """(dataset function, number of global batches, source) of a split."""
        source, batch_size = self._dataset.split(split), self._recipe.batch_size
        return (pipeline.evaluation_slices(source, self._features, batch_size=batch_size),
                pipeline.evaluation_steps(source, batch_size), source)

    def examples(self, step):
        """The indices of the training examples, or rows of them, in a step's global batch, in order."""
        recipe = self._recipe
        return pipeline.examples_of(self._dataset.rows, batch_size=recipe.batch_size, seed=recipe.seed, step=step)


def make_trainer(recipe, dataset, task, devices, workdir, jit='auto'):
    """Returns (Trainer, a line that says whether XLA compiles its step, and why)."""
    recipe = recipe.resolved(devices.hardware)
    compiled, reason = use_jit(jit, recipe.model, devices.hardware)
    trainer = Trainer(recipe, devices, task, lambda: build_model(recipe, task), workdir=workdir.path, jit=compiled,
                      total_steps=training_steps(recipe, dataset))
    return trainer, f'XLA {"on" if compiled else "off"}: {reason}'


def make_deterministic(hardware='cpu'):
    """Equal inputs give equal bits (E2), in this process, from now on, on this hardware."""
    if hardware != 'tpu':      # which is so by itself; and XLA then refuses the gradient of max-pooling
        tf.config.experimental.enable_op_determinism()


def training_steps(recipe, dataset):
    return recipe.steps or math.ceil(recipe.epochs * dataset.rows.num_examples / recipe.batch_size)


def load(path, checkpoint='newest', data_dir='', **overrides):
    """A trained model, without a strategy, from a run's folder.

    Args:
        checkpoint: newest, best, or a step number.
        overrides: fields of the recipe that are not of its training, as `beam_size`.

    Returns:
        (recipe, dataset, task, model, step)
    """
    workdir = Workdir(path)
    recipe = workdir.recipe().replace(**overrides)
    dataset, task = open_data(recipe, data_dir, workdir.tokenizer(), training=False)
    arrays, metadata = _find(Checkpoints(workdir.checkpoints), checkpoint)
    return recipe, dataset, task, _inference_model(recipe, task, arrays), metadata['step']


def export(folder, model, reference, dataset, task):
    """Writes `model`, built without a strategy, as a SavedModel. Returns its largest difference from `reference`."""
    serving.export_saved_model(model, task, folder)
    examples = dataset.test.gather(tf.range(min(EXPORT_CHECKED, dataset.test.num_examples), dtype=tf.int64))
    return serving.max_abs_difference(folder, reference, task, dataset.features.raw(examples))


def export_run(workdir, trainer, dataset):
    """Exports a run's newest checkpoint, and compares it with the trained model. Both are rebuilt without a strategy,
    one from the checkpoint and one from the variables that were trained: raw inputs need the host."""
    arrays, _ = trainer.checkpoints.newest()
    with trainer.devices.on_host():
        saved, trained = (_inference_model(trainer.recipe, trainer.task, a) for a in (arrays, trainer.state.arrays()))
        return export(workdir.export, saved, trained, dataset, trainer.task)


def _inference_model(recipe, task, arrays):
    """A model with the weights of a TrainState's arrays, averaged ones where there are any."""
    model = build_model(recipe, task)
    TrainState(model).restore(inference_arrays(arrays))
    return model


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
