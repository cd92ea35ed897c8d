"""The programs of a run, lowered: the runtime, preflight and saved programs have the same ones, from here.

Nothing here imports jax.
"""

import tensorflow as tf

from strategies.preflight import compiler


def training(strategy, step, spec, flags):
    """Lowers a TrainStep.

    Args:
        strategy: a ProgramReplicas. step: a TrainStep, made for as many replicas.
        spec: nested TensorSpecs of a replica's batch. flags: F, how many numbers are summed over the replicas on the
            way, besides one that is the runtime's own.

    Returns:
        compiler.Lowered: (batch, step number, whether it may update, flags [F + 1]) -> (the sum and the weight of each
        of `totals_names`, one after the other, and the summed flags).

    Raises:
        CannotCompile: see strategies/preflight/compiler.py.
    """
    def replica(batch, number, allowed, flags):
        totals, raised = strategy.run(step, args=(batch, number, allowed, flags))
        return [part for name in step.totals_names for part in totals[name]], raised
    return compiler.lower(replica, spec, tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.bool),
                          tf.TensorSpec([flags + 1]))


def evaluation(strategy, step, spec):
    """Lowers an EvaluationStep of batches of `spec`. Returns (compiler.Lowered, the structure of its outputs)."""
    structure = []

    def replica(*batch):
        outputs = strategy.run(step, args=batch)
        structure[:] = [tf.nest.map_structure(lambda t: 0, outputs)]
        return tf.nest.flatten(outputs)
    return compiler.lower(replica, *spec), structure[0]
