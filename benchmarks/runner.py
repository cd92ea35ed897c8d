"""A recipe's own loop, ready to be timed."""

import assembly
import recipes
from strategies import selection
from data import pipeline
from training.jit import use_jit
from training.loop import StepRunner
from training.trainer import Trainer


def recipe_loop(model, jit='auto', devices=None):
    """The loop of a model's default recipe, on one replica of the CPU, without augmentation, as in the documents.

    Returns:
        (StepRunner, recipe, task, dataset function, whether XLA compiles the step)
    """
    _, recipe = recipes.find(model=model)
    devices = devices or selection.select('cpu')
    assembly.make_deterministic()
    dataset, task = assembly.open_data(recipe)
    compiled, _ = use_jit(jit, model, devices.kind)
    trainer = Trainer(recipe, devices, task, lambda: assembly.build_model(recipe, task), total_steps=10 ** 6,
                      workdir='unused', jit=compiled)
    dataset_fn = pipeline.training_slices(dataset.train, task.features, batch_size=recipe.batch_size, seed=0)
    return StepRunner(devices.strategy, trainer._step, dataset_fn, 0), recipe, task, dataset_fn, compiled
