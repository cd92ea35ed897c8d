"""Puts the rooms together: a recipe gives a dataset, a task and a model; so does the folder of a run."""

import contextlib
import math

import keras
import tensorflow as tf

import data
import models
import tasks
from data import pipeline
from errors import RunError, UserError
from tasks import serving
from training.checkpoint import Checkpoints
from training.micro_batches import pieces_of_a_replica
from training.state import TrainState, inference_arrays
from training.trainer import Trainer
from workdir import Workdir

EXPORT_CHECKED = 64     # test examples on which an export is compared with its model
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
    with _policy(POLICIES[recipe.training.precision]):
        return models.build(recipe.model.kind, task.sizes, **recipe.model.changed())


class Batches:
    """The batches of a recipe: for the loop, for an evaluation, and for a report.

    Attributes:
        rows: of the training split. fingerprint: of all that a run reads.

    Raises:
        UserError: the batch cannot be divided over the replicas and micro-batches.
    """

    def __init__(self, recipe, dataset, task, replicas):
        self._training, self._dataset, self._task, self._replicas = recipe.training, dataset, task, replicas
        pipeline.per_replica(self._training.batch_size, replicas)
        pieces_of_a_replica(self._training.accumulate, replicas)
        self.rows = task.rows(dataset.train, training=True)
        self.fingerprint = '-'.join(part.fingerprint for part in (self.rows, dataset.validation, dataset.test))

    def training(self, start_step):
        """The dataset function of the steps from `start_step` on."""
        return pipeline.training_slices(self.rows, self._task.batch, batch_size=self._training.batch_size,
                                        seed=self._training.seed, start_step=start_step)

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


def make_trainer(recipe, rows, task, devices, workdir, jit='auto'):
    """Returns (Trainer, a line that says whether XLA compiles its step, and why)."""
    recipe = recipe.resolved(devices.hardware)
    trainer = Trainer(recipe.training, devices, task, lambda: build_model(recipe, task), workdir=workdir.path, jit=jit,
                      total_steps=training_steps(recipe, rows), recipe=recipe.to_json())
    return trainer, f'XLA {"on" if trainer.jit else "off"}: {trainer.jit_reason}'


def make_deterministic(hardware='cpu'):
    """Equal inputs give equal bits (E2), in this process, from now on, on this hardware."""
    if hardware != 'tpu':      # which is so by itself; and XLA then refuses the gradient of max-pooling
        tf.config.experimental.enable_op_determinism()


def training_steps(recipe, rows):
    training = recipe.training
    return training.steps or math.ceil(training.epochs * rows.num_examples / training.batch_size)


def load(path, checkpoint='newest', data_dir='', **overrides):
    """A trained model, without a strategy, from a run's folder.

    Args:
        checkpoint: newest, best, or a step number.
        overrides: fields of the recipe's task, for example `beam_size`.

    Returns:
        (recipe, dataset, task, model, step)
    """
    workdir = Workdir(path)
    recipe = workdir.recipe().replace(**overrides)
    dataset, task = open_data(recipe, data_dir, workdir.tokenizer())
    checkpoints = Checkpoints(workdir.checkpoints, recipe=workdir.recipe().to_json())
    arrays, metadata = _find(checkpoints, checkpoint)
    step = metadata['step']
    return recipe, dataset, task, _inference_model(recipe, task, arrays, f'step {step} of {checkpoints.folder}'), step


def export(folder, model, reference, dataset, task):
    """Writes `model`, built without a strategy, as a SavedModel. Returns its largest difference from `reference`."""
    serving.export_saved_model(model, task, folder)
    examples = dataset.test.gather(tf.range(min(EXPORT_CHECKED, dataset.test.num_examples), dtype=tf.int64))
    return serving.max_abs_difference(folder, reference, task, examples)


def export_run(workdir, recipe, trainer, dataset):
    """Exports a run's newest checkpoint, and compares it with the trained model. Both are rebuilt without a strategy,
    one from the checkpoint and one from the variables that were trained: raw inputs need the host."""
    arrays, _ = trainer.checkpoints.newest()
    with trainer.devices.on_host():
        saved, trained = (_inference_model(recipe, trainer.task, a) for a in (arrays, trainer.state.arrays()))
        return export(workdir.export, saved, trained, dataset, trainer.task)


def _inference_model(recipe, task, arrays, file='the checkpoint'):
    """A model with the weights of a TrainState's arrays, averaged ones where there are any."""
    model = build_model(recipe, task)
    TrainState(model).restore(inference_arrays(arrays), file)
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
        try:
            found = checkpoints.at(int(which))
        except ValueError:
            found = None
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
