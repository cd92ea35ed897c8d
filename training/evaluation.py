"""Exact evaluation: every example of a split once, whatever the batch size and the number of replicas."""

import collections
import functools

import tensorflow as tf

from training.micro_batches import summed

# Sums leave the graph every so many batches: float32 counts exactly only up to 2^24.
BATCHES_PER_CALL = 64


class EvaluationStep:
    """Called in a replica context with a replica's slice of a batch: {name: (sum, weight)} over all replicas.

    Args:
        pieces, sum_dtype: see micro_batches.py.
    """

    def __init__(self, model, task, pieces=1, sum_dtype=tf.float32):
        self.model, self.task = model, task
        self._pieces, self._sum_dtype = pieces, sum_dtype

    def __call__(self, *batch):
        totals = summed(lambda piece, _: self.task.evaluation_totals(self.model, *piece), batch, self._pieces,
                        self._sum_dtype)
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, totals)


class Evaluator:
    """Evaluates on one split.

    Args:
        strategy: a tf.distribute.Strategy. step: an EvaluationStep.
        dataset_fn: from `data.pipeline.evaluation_slices`.
        batches: number of global batches in it.
    """

    def __init__(self, strategy, step, dataset_fn, batches):
        # Endless, or several workers would ask each other before each batch whether there is one.
        self._dataset = strategy.distribute_datasets_from_function(lambda context: dataset_fn(context).repeat())
        self._batches, self._task = batches, step.task
        self._run = tf.function(functools.partial(run_batches, strategy, step), reduce_retracing=True)

    def __call__(self):
        """Returns {name: value}, with `loss`, the task's metrics and `count`, the number of examples seen."""
        iterator, sums = iter(self._dataset), collections.defaultdict(lambda: [0., 0.])
        for start in range(0, self._batches, BATCHES_PER_CALL):
            totals = self._run(iterator, tf.constant(min(BATCHES_PER_CALL, self._batches - start)))
            for name, (total, weight) in totals.items():
                sums[name][0] += float(total)
                sums[name][1] += float(weight)
        return self._task.results(sums)


def run_batches(strategy, step, iterator, batches):
    """The totals of `batches` batches, int32 scalar, in the graph."""
    def batch():
        totals = strategy.run(step, args=next(iterator))
        return tf.nest.map_structure(lambda t: strategy.experimental_local_results(t)[0], totals)

    totals = batch()
    for _ in tf.range(1, batches):
        totals = tf.nest.map_structure(tf.add, totals, batch())
    return totals
