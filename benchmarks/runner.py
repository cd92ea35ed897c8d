"""A recipe's own loop, ready to be timed."""

import tensorflow as tf

import recipes
from experiment import parts, weights
from experiment.workdir import Workdir
from strategies import selection
from training import randomness


def recipe_loop(model, jit='auto', devices=None, rows=0):
    """The loop of a model's default recipe, see `loop`."""
    _, recipe = recipes.find(model=model)
    return loop(recipe, jit, devices, rows)


def loop(recipe, jit='auto', devices=None, rows=0):
    """The loop of a recipe, in one piece and without augmentation, as in the documents.

    Args:
        devices: a Devices; by default one replica of the CPU.
        rows: examples of each replica's batch; 0 is the recipe's batch.

    Returns:
        (the runner of its steps, recipe, task, dataset function, whether XLA compiles the step)
    """
    devices = devices or selection.select('cpu')
    batch_size = (rows or recipe.training.batch_size) * devices.replicas
    plain = {'augment': 'none'} if 'augment' in recipe.fields() else {}
    unused = Workdir('unused')
    recipe = weights.described(recipe.replace(accumulate=1, batch_size=batch_size, **plain), unused)
    recipe = recipe.resolved(devices.hardware)
    randomness.make_deterministic()
    dataset, task = parts.open_data(recipe, tokenizer=weights.tokenizer(recipe, unused))
    batches = parts.Batches(recipe, dataset, task, devices.replicas)
    trainer, _ = parts.make_trainer(recipe, batches.rows, task, devices, unused, jit)
    if recipe.model.weights:
        weights.start(trainer, recipe, None, batches)
    runner = trainer.runner(batches.training, 0)
    return runner, recipe, task, batches.training(0), trainer.jit


def all_reduced(runner):
    """Bytes of each all-reduce of a step, from the inputs in the traced graph: gradients, totals, flags, and moments of
    BatchNorm. A step occurs once in it, in the body of the loop; one of several replicas in a process, once for each.
    """
    scalar = tf.TensorSpec([], tf.int64)
    graph = runner._run.get_concrete_function(runner._iterator, scalar, scalar).graph
    library = graph.as_graph_def(add_shapes=True).library.function
    nodes = [node for function in library for node in function.node_def if node.op.startswith('CollectiveReduce')]
    return [tf.TensorShape(node.attr['_output_shapes'].list.shape[0]).num_elements()
            * tf.as_dtype(node.attr['T'].type).size for node in nodes]
