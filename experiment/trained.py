"""The trained model of a run's folder: to evaluate, to ask, to explain, to export."""

from errors import UserError
from experiment.parts import build_model, open_data
from experiment.workdir import Workdir
from training.checkpoint import Checkpoints
from training.state import TrainState, inference_arrays


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
    return recipe, dataset, task, inference_model(recipe, task, arrays, f'step {step} of {checkpoints.folder}'), step


def inference_model(recipe, task, arrays, file='the checkpoint'):
    """A model with the weights of a TrainState's arrays, averaged ones where there are any."""
    model = build_model(recipe, task)
    TrainState(model).restore(inference_arrays(arrays), file)
    return model


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
