"""Exact evaluation: every example of a split once, whatever the batch size and the number of replicas."""

import collections

import tensorflow as tf

from training.micro_batches import summed

# Sums leave the graph every so many batches: float32 counts exactly only up to 2^24.
BATCHES_PER_CALL = 64


class Evaluator:
    """Evaluates a model on one split.

    Args:
        dataset_fn: from `data.pipeline.evaluation_slices`.
        batches: number of global batches in it.
        pieces, sum_dtype: see micro_batches.py.
    """

    def __init__(self, strategy, model, task, dataset_fn, batches, pieces=1, sum_dtype=tf.float32):
        self._strategy, self._task, self._model = strategy, task, model
        self._pieces, self._sum_dtype = pieces, sum_dtype
        # Endless, or several workers would ask each other before each batch whether there is one.
        self._dataset = strategy.distribute_datasets_from_function(lambda context: dataset_fn(context).repeat())
        self._batches = batches

    def __call__(self):
        """Returns {name: value}, with `loss`, the task's metrics and `count`, the number of examples seen."""
        iterator, sums = iter(self._dataset), collections.defaultdict(lambda: [0., 0.])
        for start in range(0, self._batches, BATCHES_PER_CALL):
            totals = self._run(iterator, tf.constant(min(BATCHES_PER_CALL, self._batches - start)))
            for name, (total, weight) in totals.items():
                sums[name][0] += float(total)
                sums[name][1] += float(weight)
        return self._task.results(sums)

    @tf.function(reduce_retracing=True)
    def _run(self, iterator, batches):
        totals = self._batch(next(iterator))
        for _ in tf.range(1, batches):
            totals = tf.nest.map_structure(tf.add, totals, self._batch(next(iterator)))
        return totals

    def _batch(self, batch):
        def replica(*batch):
            totals = summed(lambda piece, _: self._task.evaluation_totals(self._model, *piece), batch, self._pieces,
                            self._sum_dtype)
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, totals)
        totals = self._strategy.run(replica, args=batch)
        return tf.nest.map_structure(lambda t: self._strategy.experimental_local_results(t)[0], totals)
