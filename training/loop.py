"""The loop: many steps inside one tf.function, and between such calls whatever is due.

What is due (a log line, an evaluation, a checkpoint) never changes the weights, so how many steps go into one call
never changes a result.
"""

import contextlib
import functools
import time
from typing import NamedTuple

import tensorflow as tf

CALL_SECONDS = 1.      # about as long as a call into the graph lasts: the progress bar moves
NEVER = -1             # as a step


class Call(NamedTuple):
    """What a call into the graph did."""
    steps: int
    totals: dict         # {name: (sum, weight)} over the steps, and all replicas
    waited: float        # seconds per step spent waiting for data: of the last step, or a mean
    flags: list          # stop requests raised on any worker during the call: see training/interrupt.py
    first_bad: int       # the first step whose gradient was not finite, or NEVER
    bad_run: int         # how many of the last steps, one after the other, were such


class StepRunner:
    """Runs steps of the pipeline in the graph, from `next_step` on.

    Args:
        strategy: a tf.distribute.Strategy. step: a TrainStep.
        dataset_fn: function (start step) -> dataset function, see data/pipeline.py.
        start_step: int.
        flags: float32 variable [F] in host memory: a call returns early when one is not 0, on any worker.
        banned: steps whose batches change nothing.
    """

    fingerprint, lowering_seconds = None, 0.      # tf.function traces and lowers in the first call

    def __init__(self, strategy, step, dataset_fn, start_step, flags=None, banned=()):
        self._strategy, self.step, self._dataset_fn = strategy, step, dataset_fn
        with tf.device('CPU:0'):
            self._flags = tf.Variable(tf.zeros([1])) if flags is None else flags
            self._banned = tf.Variable(tf.zeros([0], tf.int64), shape=[None])
        self._run = tf.function(functools.partial(run_steps, strategy, step, flags=self._flags, banned=self._banned),
                                reduce_retracing=True)
        self.seek(start_step, banned)

    def seek(self, step, banned=()):
        """Goes to a step. banned: steps whose batches change nothing."""
        self._banned.assign(tf.constant(sorted(banned), tf.int64))
        self._iterator = iter(self._strategy.distribute_datasets_from_function(self._dataset_fn(step)))
        self.next_step = step

    def next_batch(self):
        return next(self._iterator)

    def gradient_norms(self, step):
        """([norm of the summed gradient of each trainable variable], totals) of the next batch, that of `step`."""
        @tf.function
        def everywhere(batch):
            return tf.nest.map_structure(
                lambda t: self._strategy.experimental_local_results(t)[0],
                self._strategy.run(self.step.gradient_norms, args=(batch, tf.constant(step, tf.int64))))
        return everywhere(self.next_batch())

    def __call__(self, count):
        """Runs `count` steps, or fewer if a flag was raised. Returns a Call."""
        start, count = tf.constant(self.next_step, tf.int64), tf.constant(count, tf.int64)
        steps, totals, waited, flags, first_bad, bad_run = self._run(self._iterator, start, count)
        self.next_step += int(steps)
        totals = {name: (float(total), float(weight)) for name, (total, weight) in totals.items()}
        return Call(int(steps), totals, float(waited), flags.numpy().tolist(), int(first_bad), int(bad_run))


def run_steps(strategy, step, iterator, start, count, flags, banned):
    """`count` steps in the graph, or fewer if a flag was raised: host code around one call of the devices per step.

    Args:
        start, count: int64 scalars. flags: float32 variable [F]. banned: int64 variable [N].
        The others: see StepRunner.

    Returns:
        The fields of a Call, as tensors.
    """
    def local(nested):
        # The first replica's tensors: enough to wait on, and equal on all replicas where they are totals.
        return [strategy.experimental_local_results(t)[0] for t in tf.nest.flatten(nested)]

    # In float64, or the last digits would depend on how many steps are in a call.
    zero = tf.zeros([], tf.float64)
    totals = {name: (zero, zero) for name in step.totals_names}
    waited, raised, done = tf.zeros([], tf.float64), tf.zeros_like(flags), tf.zeros([], tf.int64)
    first_bad, bad_run, stop = tf.constant(NEVER, tf.int64), tf.zeros([], tf.int64), False
    while done < count and not stop:
        # A flag ends the call one step after the one that carried it: the host need not wait for a step's result
        # before it starts the next.
        stop = tf.reduce_any(raised > 0)
        sampled = stop | (done == count - 1)
        with tf.control_dependencies(tf.nest.flatten(totals)):       # the step before has ended
            asked = _clock_if(sampled)
        with tf.control_dependencies([asked]):
            batch = next(iterator)
        with tf.control_dependencies(local(batch)):
            waited += _clock_if(sampled) - asked
        number = start + done
        allowed = tf.reduce_all(banned != number)
        results = strategy.run(step, args=(batch, number, allowed, flags.value()))
        more, raised = tf.nest.map_structure(lambda t: local(t)[0], results)
        bad = allowed & (more['skipped'][0] > 0)
        first_bad = tf.where(bad & (first_bad == NEVER), number, first_bad)
        bad_run = tf.where(bad, bad_run + 1, 0)
        totals = {name: (total + tf.cast(more[name][0], tf.float64), weight + tf.cast(more[name][1], tf.float64))
                  for name, (total, weight) in totals.items()}
        done += 1
    return done, totals, waited, raised, first_bad, bad_run


def _clock_if(wanted):
    """Seconds, or 0: a call back into Python costs microseconds, so not every step makes one.

    Not tf.timestamp, which op determinism refuses.
    """
    return tf.cond(wanted, lambda: tf.ensure_shape(tf.numpy_function(time.perf_counter, [], tf.float64), []),
                   lambda: tf.zeros([], tf.float64))


def train(runner, total, intervals, on_call, interrupt=None, steps_per_call=0):
    """Calls the runner up to each next thing due, until `total` steps.

    Args:
        intervals: numbers of steps after which something is due; a call ends at each multiple of one; 0 is never.
        on_call: function (Call, seconds, whether it was the first) -> whether to continue.
        interrupt: on the chief, an Interrupt, by which a call lasts about a second; None elsewhere and in tests.
        steps_per_call: instead, at most this many steps per call.
    """
    first, go_on = True, True
    while runner.next_step < total and go_on:
        step = runner.next_step
        count = min([total - step] + [n - step % n for n in intervals if n])
        count = 1 if first else min(count, steps_per_call or count)    # the first compiles: it is timed alone
        timed = interrupt and not steps_per_call
        started = time.perf_counter()
        with interrupt.pause_after(CALL_SECONDS) if timed else contextlib.nullcontext():
            call = runner(count)
        go_on = on_call(call, time.perf_counter() - started, first)
        first = False
