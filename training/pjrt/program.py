"""A function of one replica, as TensorFlow lowers it, as a function of jax's."""

import dataclasses

import jax
import numpy as np

from strategies.preflight import artifact


@dataclasses.dataclass(frozen=True)
class Program:
    """What `made_of` makes.

    Attributes:
        call: jax function of flat arguments and then of the values of `captured` -> flat outputs. On several devices it
            may be called within jax.shard_map only.
        captured: the tf.Variables, and other tensors, that it reads.
        updates: {number of a captured variable: number of the output that is its new value}.
        results: numbers of the outputs that are the function's own, in the order of tf.nest.flatten.
    """
    call: object
    captured: tuple
    updates: dict
    results: tuple


def made_of(lowered):
    """strategies.preflight.compiler.Lowered -> Program.

    Raises:
        CannotCompile: see strategies/preflight/artifact.py.
    """
    exported, replaced = artifact.exported(lowered.hlo)
    updates = {index: replaced[lowered.arguments + index] for index in range(len(lowered.captured))
               if lowered.arguments + index in replaced}
    results = tuple(i for i in range(len(exported.out_avals)) if i not in updates.values())
    return Program(exported.call, lowered.captured, updates, results)


def launch_once(mesh, program):
    """A jax function (block of one step, more arguments, values of `captured`) -> the program's results."""
    def replica(block, arguments, state):
        outputs = program.call(*(field[0] for field in block), *arguments, *state)
        return [outputs[i] for i in program.results]
    return jax.jit(jax.shard_map(replica, mesh=mesh, check_vma=False, out_specs=jax.P(),
                                 in_specs=(jax.P(None, 'replica'), jax.P(), jax.P())))


def value_of(captured):
    """numpy array of what a program reads: of a tf.Variable, or of a tensor."""
    return np.asarray(captured.numpy())
