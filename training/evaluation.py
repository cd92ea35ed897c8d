"""Exact evaluation: every example of a split once, whatever the batch size and the number of replicas."""

import collections
import functools

import numpy as np
import tensorflow as tf

from training.micro_batches import summed

# Sums leave the graph every N batches: float32 counts exactly only up to 2^24.
BATCHES_PER_CALL = 64


class EvaluationStep:
    """Called in a replica context with a replica's slice of a batch.

    Returns:
        {name: (sum, weight)} over all replicas; and the task's answers to the global batch, int32 [B, ...], or () for a
        task that gives none. Both are equal on every replica.

    Args:
        pieces, sum_dtype: see micro_batches.py.
    """

    def __init__(self, model, task, pieces=1, sum_dtype=tf.float32):
        self.model, self.task = model, task
        self._pieces, self._sum_dtype = pieces, sum_dtype

    def __call__(self, *batch):
        context = tf.distribute.get_replica_context()
        totals = summed(lambda piece, _: self.task.evaluation_totals(self.model, *piece), batch, self._pieces,
                        self._sum_dtype)
        mine = tf.one_hot(context.replica_id_in_sync_group, context.num_replicas_in_sync, dtype=self._sum_dtype)

        def among_all(answers):
            # Zeros in the other replicas' rows: the sum puts all slices in order, by the all-reduce of the totals.
            rows = tf.tensordot(mine, tf.cast(answers, self._sum_dtype), axes=0)              # [b, ...] -> [R, b, ...]
            return tf.reshape(rows, [-1, *answers.shape[1:]])                                 # [B, ...]

        answers = tf.nest.map_structure(among_all, self.task.answers(self.model, batch[0]))
        totals, answers = context.all_reduce(tf.distribute.ReduceOp.SUM, (totals, answers))
        return totals, tf.nest.map_structure(lambda t: tf.cast(t, tf.int32), answers)


class Evaluator:
    """Evaluates on one split.

    Args:
        strategy: a tf.distribute.Strategy. step: an EvaluationStep.
        dataset_fn: from `data.pipeline.evaluation_slices`.
        batches: number of global batches in it.
        source: the split itself (see data/source.py), for what the answers are compared with.
    """

    def __init__(self, strategy, step, dataset_fn, batches, source):
        # Endless, or several workers would ask each other before each batch whether there is one.
        self._dataset = strategy.distribute_datasets_from_function(lambda context: dataset_fn(context).repeat())
        self._batches, self._task, self._source = batches, step.task, source
        self._run = tf.function(functools.partial(run_batches, strategy, step), reduce_retracing=True)

    def __call__(self):
        """Returns {name: value}, with `loss`, the task's metrics and `count`, the number of examples seen."""
        iterator, sums, answers = iter(self._dataset), collections.defaultdict(lambda: [0., 0.]), []
        for start in range(0, self._batches, BATCHES_PER_CALL):
            totals, here = self._run(iterator, tf.constant(min(BATCHES_PER_CALL, self._batches - start)))
            answers += [t.numpy().reshape(-1, *t.shape[2:]) for t in tf.nest.flatten(here)]
            for name, (total, weight) in totals.items():
                sums[name][0] += float(total)
                sums[name][1] += float(weight)
        values = self._task.results(sums)
        if answers:      # the last batch is padded
            values |= self._task.compare(np.concatenate(answers)[:self._source.num_examples], self._source)
        return values


def run_batches(strategy, step, iterator, batches):
    """The totals of `batches` batches, int32 scalar, and their answers [batches, B, ...], in the graph."""
    def batch():
        results = strategy.run(step, args=next(iterator))
        return tf.nest.map_structure(lambda t: strategy.experimental_local_results(t)[0], results)

    totals, first = batch()
    answers = tf.nest.map_structure(
        lambda t: tf.TensorArray(t.dtype, batches, element_shape=t.shape).write(0, t), first)
    for i in tf.range(1, batches):
        more, here = batch()
        totals = tf.nest.map_structure(tf.add, totals, more)
        answers = tf.nest.map_structure(lambda array, t: array.write(i, t), answers, here)
    return totals, tf.nest.map_structure(lambda array: array.stack(), answers)
