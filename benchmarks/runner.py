"""A recipe's own loop, ready to be timed."""

import assembly
import recipes
from strategies import selection
from training.jit import use_jit
from training.loop import StepRunner
from workdir import Workdir


def recipe_loop(model, jit='auto', devices=None):
    """The loop of a model's default recipe, on one replica of the CPU, in one piece and without augmentation, as in the
    documents.

    Returns:
        (StepRunner, recipe, task, dataset function, whether XLA compiles the step)
    """
    _, recipe = recipes.find(model=model)
    recipe = recipe.replace(augment='none', accumulate=1)
    devices = devices or selection.select('cpu')
    assembly.make_deterministic()
    dataset, task = assembly.open_data(recipe)
    batches = assembly.Batches(recipe, dataset, task, devices.replicas)
    trainer, _ = assembly.make_trainer(recipe, dataset, task, devices, Workdir('unused'), jit)
    compiled, _ = use_jit(jit, model, devices.kind)
    runner = StepRunner(devices.strategy, trainer._step, batches.training, 0)
    return runner, recipe, task, batches.training(0), compiled
