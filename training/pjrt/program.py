"""A function of one replica, as TensorFlow lowers it, as a function of jax's."""

import dataclasses
import hashlib

import numpy as np
import tensorflow as tf

from strategies.preflight import artifact, compiler


@dataclasses.dataclass(frozen=True)
class Program:
    """What `lower` makes.

    Attributes:
        call: jax function of flat arguments and then of the values of `captured` -> flat outputs. On several devices it
            may be called within jax.shard_map only.
        captured: the tf.Variables, and other tensors, that it reads.
        updates: {number of a captured variable: number of the output that is its new value}.
        results: numbers of the outputs that are the function's own, in the order of tf.nest.flatten.
        fingerprint: of the program, the same wherever it is lowered from the same code, versions and recipe.
    """
    call: object
    captured: tuple
    updates: dict
    results: tuple
    fingerprint: str


def lower(function, *specs):
    """function: of one replica, within a ProgramReplicas' `run`. specs: its arguments, nested TensorSpecs.

    Raises:
        CannotCompile: see strategies/preflight/compiler.py.
    """
    lowered = compiler.lower(function, *specs)
    exported, replaced = artifact.exported(lowered.hlo)
    arguments = len(tf.nest.flatten(specs))
    updates = {index: replaced[arguments + index] for index in range(len(lowered.captured))
               if arguments + index in replaced}
    results = tuple(i for i in range(len(exported.out_avals)) if i not in updates.values())
    return Program(exported.call, lowered.captured, updates, results, fingerprint(lowered.hlo))


def fingerprint(hlo):
    """12 hexadecimal digits of serialized HLO."""
    return hashlib.sha256(hlo).hexdigest()[:12]


def value_of(captured):
    """numpy array of what a program reads: of a tf.Variable, or of a tensor."""
    return np.asarray(captured.numpy())
