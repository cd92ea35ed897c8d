"""The loop: many steps inside one tf.function, and between such calls whatever is due.

What is due (a log line, an evaluation, a checkpoint) never changes the weights, so how many steps go into one call
never changes a result.
"""

import signal
import threading
import time

import tensorflow as tf

CALL_SECONDS = 1.      # about as long as a call into the graph lasts: the progress bar moves, Ctrl-C is answered


class StepRunner:
    """Runs steps `start .. start + count` of the pipeline in the graph and returns their summed totals."""

    def __init__(self, strategy, step, dataset_fn, start_step):
        self._strategy, self._step = strategy, step
        self._iterator = iter(strategy.distribute_datasets_from_function(dataset_fn))
        self.next_step = start_step

    def __call__(self, count):
        """Returns ({name: (sum, weight)} as floats, seconds for which the last step waited for its data)."""
        totals, waited = self._run(self._iterator, tf.constant(self.next_step, tf.int64), tf.constant(count))
        self.next_step += count
        return {name: (float(total), float(weight)) for name, (total, weight) in totals.items()}, float(waited)

    @tf.function(reduce_retracing=True)
    def _run(self, iterator, start, count):
        totals = {name: (tf.zeros([]), tf.zeros([])) for name in self._step.totals_names}
        waited = tf.zeros([], tf.float64)
        for i in tf.range(count):
            # The wait for data is sampled, at the last step of a call; tf.timestamp is refused by op determinism.
            sampled = i == count - 1
            with tf.control_dependencies(tf.nest.flatten(totals)):       # the step before has ended
                asked = _clock_if(sampled)
            with tf.control_dependencies([asked]):
                batch = next(iterator)
            with tf.control_dependencies(self._local(batch)):
                waited += _clock_if(sampled) - asked
            step_totals = self._strategy.run(self._step, args=(batch, start + tf.cast(i, tf.int64)))
            local = tf.nest.map_structure(lambda t: self._local(t)[0], step_totals)
            totals = {name: (total + local[name][0], weight + local[name][1])
                      for name, (total, weight) in totals.items()}
        return totals, waited

    def _local(self, nested):
        """The first replica's tensors: enough to wait on, and equal on all replicas where they are totals."""
        return [self._strategy.experimental_local_results(t)[0] for t in tf.nest.flatten(nested)]


def _clock_if(wanted):
    """Seconds, or 0: a call back into Python costs microseconds, so not every step makes one."""
    return tf.cond(wanted, lambda: tf.ensure_shape(tf.numpy_function(time.perf_counter, [], tf.float64), []),
                   lambda: tf.zeros([], tf.float64))


class Interrupt:
    """Remembers SIGINT and SIGTERM until the loop can save and stop. A second Ctrl-C stops at once."""

    def __init__(self):
        self.received = None
        self._before = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():     # Python delivers signals only there
            self._before = {s: signal.signal(s, self._handle) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number, _):
        if self.received == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number


class Pace:
    """How many steps to put into the next call, from the measured seconds a step, and up to the next thing due."""

    def __init__(self, total, intervals, steps_per_call=0):
        self._total, self._intervals, self._fixed = total, [n for n in intervals if n], steps_per_call
        self._step_seconds = None

    def next_count(self, step):
        due = min([self._total - step] + [n - step % n for n in self._intervals])
        if self._fixed:
            return min(due, self._fixed)
        if self._step_seconds is None:
            return 1                      # the first call traces and compiles: it is timed alone
        return max(1, min(due, int(CALL_SECONDS / self._step_seconds)))

    def measured(self, count, seconds, first):
        if not first:
            self._step_seconds = max(seconds / count, 1e-6)
        elif self._step_seconds is None:
            self._step_seconds = CALL_SECONDS / 4      # a careful second call; then it is known


def train(runner, total, pace, on_call, interrupt):
    """Runs until `total` steps or an interrupt.

    Args:
        on_call: called after each call with (count, totals, data wait seconds, seconds, whether it was the first).
    """
    first = True
    while runner.next_step < total and not interrupt.received:
        count = pace.next_count(runner.next_step)
        started = time.perf_counter()
        totals, waited = runner(count)
        seconds = time.perf_counter() - started
        pace.measured(count, seconds, first)
        on_call(count, totals, waited, seconds, first)
        first = False
