"""Writes a recipe's training step as a program to carry, see strategies/program.py."""

import dataclasses
import importlib.metadata
import json
import pathlib
import shutil

import keras
import numpy as np
import tensorflow as tf
from safetensors.numpy import save

from errors import RunError, UserError
from experiment import parts, weights
from experiment.workdir import Workdir
from strategies import program, selection
from strategies.preflight import artifact
from strategies.preflight.replicas import ProgramReplicas
from training import randomness
from training.files import write_atomically
from training.interrupt import FLAGS
from training.loop import StepRunner
from training.pjrt import lowering


def save_program(recipe, folder, *, name, data_dir='', steps=8, drawn=False, compare=True, exact=False, say=print):
    """Writes a program of a recipe's step on one device.

    Args:
        folder: path, which must not exist yet. name: of the recipe.
        steps: batches to save, at least 1.
        drawn: whether each machine draws the weights that the steps begin with, normal, with the mean and deviation
            that each variable has; else they are stored. For models of which a file would be too large.
        compare: whether the steps are run here, for the losses and the weights after them.
        exact: whether products of float32 are so everywhere, see strategies/preflight/artifact.py.
        say: function (line), called before what takes long.

    Raises:
        UserError: the folder exists, or an argument cannot work. CannotCompile: XLA cannot compile the step.
    """
    folder, training = pathlib.Path(folder).expanduser(), recipe.training
    if folder.exists():
        raise UserError(f'`output` must be a folder that does not exist yet. Received: output={str(folder)!r}')
    if exact and training.precision not in ('auto', 'float32'):
        raise UserError(f'`exact` is for float32. Received: exact=True, precision={training.precision}')
    if drawn and recipe.model.weights:
        raise UserError('`drawn` and `weights` exclude each other. '
                        f'Received: drawn=True, weights={recipe.model.weights!r}')
    artifact.need_jax()
    trainer, batches = _open(recipe.replace(precision='float32') if exact else recipe, data_dir)
    say('lowering the step')
    serialized, variables, about = _lower(trainer, batches, exact)
    if drawn:
        for path, variable in trainer.state.variables.items():
            variable.assign(program.draw(path, **about['state'][path]))
    before = {path: np.array(value) for path, value in variables.items()
              if not drawn and 'deviation' in about['state'][path]}
    about |= {'recipe': name, 'steps': steps, 'losses': []}
    saved = _first_batches(batches, about['batch'], steps)
    if compare:
        say(f'running {steps} steps on this machine')
        randomness.make_deterministic()      # not before: XLA then refuses the gradient of max-pooling
        runner = StepRunner(trainer.devices.strategy, trainer.train_step, batches.training, 0)
        # None where the step was skipped, as the first of a run in float16 are.
        about['losses'] = [loss / weight if weight else None
                           for loss, weight in (runner(1).totals['loss'] for _ in range(steps))]
    after = {path: np.array(value) for path, value in variables.items()
             if compare and not drawn and _is_weight(path)}
    contents = json.dumps(about, indent=1).encode(), serialized, save(before), save(saved), save(after)
    _write(folder, dict(zip(program.FILES, contents)))
    return about


def _write(folder, contents):
    """Writes {file name: bytes} into a new folder, which is there only when all of them are."""
    temporary = folder.with_name(f'.{folder.name}.tmp')
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        for name, data in contents.items():
            write_atomically(temporary / name, data)
        temporary.rename(folder)
    except OSError as error:
        raise RunError(f'the program could not be written to {folder}: {error.strerror}') from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _open(recipe, data_dir):
    """Returns (Trainer, Batches) of one device of XLA."""
    keras.backend.clear_session()
    recipe = weights.described(recipe, Workdir('unused'))
    # As preflight, for the hardware that it is meant for: bfloat16 where precision is auto, no sum in float64.
    devices = dataclasses.replace(selection.select('cpu'), hardware='tpu')
    dataset, task = parts.open_data(recipe, data_dir, weights.tokenizer(recipe, Workdir('unused')))
    batches = parts.Batches(recipe, dataset, task, 1)
    trainer, _ = parts.make_trainer(recipe, batches.rows, task, devices, Workdir('unused'))
    trainer.count_flops(batches.spec)
    weights.start(trainer, recipe, None, batches)
    return trainer, batches


def _lower(trainer, batches, exact):
    """Returns (artifact, {path: variable or tensor} in the order of the inputs, what program.json says of it)."""
    lowered = lowering.training(ProgramReplicas(1), trainer.train_step, batches.spec, FLAGS)
    serialized, replaced = artifact.portable(lowered.hlo, exact)
    names = {id(variable): path for path, variable in trainer.state.variables.items()}
    variables = {names.get(id(captured), f'other/{index}'): captured for index, captured in enumerate(lowered.captured)}
    training, first = trainer.training, 2 * trainer.train_step.totals_names.index('loss')
    return serialized, variables, {
        'format': program.FORMAT, 'precision': 'exact float32' if exact else training.precision, 'flags': FLAGS + 1,
        'fingerprint': lowered.fingerprint,
        'batch_size': training.batch_size, 'parameters': trainer.model.count_params(),
        'flops_per_step': trainer.flops_per_step, 'loss': [first, first + 1],
        'batch': _names(batches.spec),
        'updates': [[index, replaced[lowered.arguments + index]] for index in range(len(variables))
                    if lowered.arguments + index in replaced],
        'state': {path: _summary(np.array(value)) for path, value in variables.items()},
        'versions': {name: importlib.metadata.version(name) for name in ('keras', 'jax', 'tensorflow')}}


def _is_weight(path):
    return path.startswith(('model/', 'average/'))


def _names(batch):
    """A name for each tensor of (x, y, weights), in the order of tf.nest.flatten: 'x/source', 'y', 'weights'."""
    named = dict(zip(('x', 'y', 'weights'), batch))
    order = [path for part in named for path, _ in keras.tree.flatten_with_path({part: named[part]})]
    return ['/'.join(map(str, path)) for path in order]


def _summary(array):
    """The arguments of program.draw for an array like this one."""
    summary = {'shape': array.shape, 'dtype': array.dtype.name}
    if array.size and (array == array.flat[0]).all():
        return summary | {'mean': array.flat[0].item()}
    array = array.astype(np.float64)
    return summary | {'mean': float(array.mean()), 'deviation': float(array.std())}


def _first_batches(batches, names, steps):
    """{name: [S, ...]} of the first batches of a run."""
    iterator = iter(batches.training(0)(tf.distribute.InputContext()))
    each = [[field.numpy() for field in tf.nest.flatten(next(iterator))] for _ in range(steps)]
    return {name: np.stack(field) for name, field in zip(names, zip(*each))}
