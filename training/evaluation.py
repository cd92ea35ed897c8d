"""Exact evaluation: every example of a split once, whatever the batch size and the number of replicas."""

import collections
import functools
import time

import numpy as np
import tensorflow as tf

from errors import Stopped
from training import interrupt
from training.micro_batches import summed

CALL_SECONDS = 1.           # about as long as a call into the graph lasts: a signal waits for its end
BATCHES_PER_CALL = 64       # at most: a call holds all their answers


class EvaluationStep:
    """Called in a replica context with a replica's slice of a batch: x, y, weights, real (see data/pipeline.py).

    Returns:
        {name: (sum, weight)} over all replicas, tensors of any shape; and the task's answers to the global batch,
        nested tensors [B, ...], or () for a task that gives none. Both are equal on every replica.

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
        replica, replicas = context.replica_id_in_sync_group, context.num_replicas_in_sync

        def among_all(answers):
            # Zeros in the other replicas' rows: the sum puts all slices in order, by the all-reduce of the totals.
            mine = tf.reshape(tf.range(replicas) == replica, [-1] + [1] * answers.shape.rank)
            rows = tf.where(mine, answers[None], tf.zeros([], answers.dtype))                 # [b, ...] -> [R, b, ...]
            return tf.reshape(rows, [-1, *answers.shape[1:]])                                 # [B, ...]

        answers = self.task.answers(self.model, batch[0])
        # All in one type, as carriers of the same numbers: an all-reduce of several types is refused, or is several.
        carried = tf.nest.map_structure(lambda t: among_all(tf.cast(_halves(t), self._sum_dtype)), answers)
        totals, carried = context.all_reduce(tf.distribute.ReduceOp.SUM, (totals, carried))
        return totals, tf.nest.map_structure(lambda t, like: _restored(t, like.dtype), carried, answers)


EXACT = (tf.bool, tf.int8, tf.uint8, tf.int16, tf.uint16, tf.float16, tf.bfloat16, tf.float32)     # as float32
SPLIT = (tf.int32, tf.uint32, tf.int64, tf.uint64, tf.float64)


def _halves(t):
    """Numbers that float32 holds exactly: t itself, or its bits in pieces of 16, [...] -> [..., 2 or 4]."""
    if t.dtype not in (*EXACT, *SPLIT):
        raise TypeError(f'`answers` must be numbers. Received: {t.dtype.name}')
    return tf.bitcast(t, tf.uint16) if t.dtype in SPLIT else t


def _restored(t, dtype):
    return tf.bitcast(tf.cast(t, tf.uint16), dtype) if dtype in SPLIT else tf.cast(t, dtype)


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
        self._mean = tf.function(functools.partial(mean_over_replicas, strategy))
        self._per_call, self._traced = 1, False

    def __call__(self, flags=None):
        """Returns {name: value}, with `loss`, the task's metrics and `count`, the number of examples seen.

        Args:
            flags: float32 variable [F] of an Interrupt, which is looked at after each call into the graph.

        Raises:
            Stopped: a flag was raised, on any worker.
        """
        return collect(self._results(flags), self._task, self._source)

    def _results(self, flags):
        """(totals, answers) of each batch, numpy arrays."""
        iterator, done = iter(self._dataset), 0
        while done < self._batches:
            count, started = min(self._per_call, self._batches - done), time.perf_counter()
            results = tf.nest.map_structure(lambda t: t.numpy(), self._run(iterator, tf.constant(count)))
            yield from (tf.nest.map_structure(lambda array: array[i], results) for i in range(count))
            done += count
            self._after_call((time.perf_counter() - started) / count, flags)

    def _after_call(self, seconds, flags):
        """Decides how many batches the next call has, and whether there is one: the same on all workers."""
        mine = [seconds] if flags is None else [seconds, *flags.numpy()]
        seconds, *flags = self._mean(tf.constant(mine, tf.float32)).numpy()
        if stopped_by := interrupt.cause(flags):
            raise Stopped(stopped_by)
        if self._traced:      # the first call says nothing of the next
            self._per_call = max(1, min(BATCHES_PER_CALL, int(CALL_SECONDS / max(seconds, 1e-9))))
        self._traced = True


def collect(results, task, source):
    """(totals, answers) of each batch of a source, numpy arrays -> {name: value}."""
    sums, answers = collections.defaultdict(lambda: [0., 0.]), []
    for totals, here in results:
        for name, (total, weight) in totals.items():
            # Added batch by batch, so that how many are in a call changes no digit.
            sums[name][0] += np.asarray(total, np.float64)
            sums[name][1] += np.asarray(weight, np.float64)
        if tf.nest.flatten(here):
            answers.append(here)
    values = task.results(sums)
    if answers:      # the last batch is padded; a task may make several rows of an example
        rows = task.rows_of(source)
        whole = tf.nest.map_structure(lambda *parts: np.concatenate(parts)[:rows], *answers)
        values |= task.compare(whole, source)
    return values


def mean_over_replicas(strategy, values):
    """float32 [N] of this worker -> the mean over all replicas of all workers."""
    def replica(values):      # a tensor that replicas share would not count as one of each
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, tf.identity(values))
    return strategy.experimental_local_results(strategy.run(replica, args=(values,)))[0]


def run_batches(strategy, step, iterator, batches):
    """The totals, [batches] each, and the answers, [batches, B, ...], of `batches` batches, in the graph."""
    def batch():
        results = strategy.run(step, args=next(iterator))
        return tf.nest.map_structure(lambda t: strategy.experimental_local_results(t)[0], results)

    results = tf.nest.map_structure(
        lambda t: tf.TensorArray(t.dtype, batches, element_shape=t.shape).write(0, t), batch())
    for i in tf.range(1, batches):
        results = tf.nest.map_structure(lambda array, t: array.write(i, t), results, batch())
    return tf.nest.map_structure(lambda array: array.stack(), results)
