"""A recipe's own loop, ready to be timed."""

import recipes
from experiment import parts
from experiment.workdir import Workdir
from strategies import selection
from training import randomness


def recipe_loop(model, jit='auto', devices=None, rows=0):
    """The loop of a model's default recipe, in one piece and without augmentation, as in the documents.

    Args:
        devices: a Devices; by default one replica of the CPU.
        rows: examples of each replica's batch; 0 is the recipe's batch.

    Returns:
        (the runner of its steps, recipe, task, dataset function, whether XLA compiles the step)
    """
    _, recipe = recipes.find(model=model)
    devices = devices or selection.select('cpu')
    batch_size = (rows or recipe.training.batch_size) * devices.replicas
    plain = {'augment': 'none'} if 'augment' in recipe.fields() else {}
    recipe = recipe.replace(accumulate=1, batch_size=batch_size, **plain).resolved(devices.hardware)
    randomness.make_deterministic()
    dataset, task = parts.open_data(recipe)
    batches = parts.Batches(recipe, dataset, task, devices.replicas)
    trainer, _ = parts.make_trainer(recipe, batches.rows, task, devices, Workdir('unused'), jit)
    runner = trainer.runner(batches.training, 0)
    return runner, recipe, task, batches.training(0), trainer.jit
