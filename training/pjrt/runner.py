"""The loop's steps, several per launch of one program, whose batches are sent ahead."""

import concurrent.futures
import time
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from strategies.preflight import compiler
from training.loop import NEVER, Call
from training.pjrt import lowering
from training.pjrt.launch import Launch, block_length
from training.pjrt.program import launch_once, made_of

LAUNCH_SECONDS = 0.25        # about as long as a launch lasts, at most: a signal waits for the end of one


class PjrtRunner:
    """As training.loop.StepRunner, on the devices of a mesh.

    Args:
        devices: a strategies.pjrt.PjrtDevices. state: a PjrtState.
        step, dataset_fn, start_step, flags, banned: as StepRunner.

    Attributes:
        fingerprint: of the step as it was lowered, see strategies/preflight/fingerprint.py.
        lowering_seconds: how long that took; the first call compiles.
    """

    def __init__(self, devices, state, step, dataset_fn, start_step, flags=None, banned=()):
        self._devices, self._state, self.step, self._dataset_fn = devices, state, step, dataset_fn
        self._flags = tf.Variable(tf.zeros([1])) if flags is None else flags
        self._spec = devices.element_spec(dataset_fn(start_step))
        self.block_length = block_length(self._spec, devices.local)
        began = time.perf_counter()
        # The last flag is how long a step takes, as the chief measured it.
        lowered = lowering.training(devices.strategy, step, self._spec, self._flags.shape[0])
        self._launch = Launch(made_of(lowered), devices.mesh, self.block_length)
        self.fingerprint, self.lowering_seconds = lowered.fingerprint, time.perf_counter() - began
        self._measured = self._step_seconds = 0.      # seconds per step, here and on the chief
        self._has_compiled = False
        self._sender = concurrent.futures.ThreadPoolExecutor(1, 'batches')      # sends while steps are launched
        self._coming = None
        self.seek(start_step, banned)

    def seek(self, step, banned=()):
        """Goes to a step. banned: steps whose batches change nothing."""
        if self._coming:
            self._coming.result()      # of the steps before; the thread is free then
        self._banned, self.next_step, self._block_step = set(banned), step, step
        self._blocks = self._read(step, self.block_length)
        self._block = next(self._blocks)
        self._coming = self._sender.submit(next, self._blocks)

    def _read(self, step, length):
        """Blocks of the batches of the steps from `step` on, `length` each, on their way to the devices."""
        slices = self._dataset_fn(step)(self._devices.input_context())
        for fields in slices.batch(length * self._devices.local, drop_remainder=True).prefetch(2):
            yield [self._devices.put_block(field.numpy(), length) for field in tf.nest.flatten(fields)]

    def gradient_norms(self, step):
        """As StepRunner.gradient_norms, of the first batch of the block that is on the devices."""
        names = []

        def replica(batch, number):
            norms, totals = self._devices.strategy.run(self.step.gradient_norms, args=(batch, number))
            names[:] = sorted(totals)
            return norms, [totals[name] for name in names]
        program = made_of(compiler.lower(replica, self._spec, tf.TensorSpec([], tf.int64)))
        results = launch_once(self._devices.mesh, program)(
            self._block, (np.int64(step),), self._state.values(program.captured))
        flat = [float(result.addressable_data(0)) for result in results]
        norms, sums = flat[:-2 * len(names)], flat[-2 * len(names):]
        return norms, {name: tuple(sums[2 * i:2 * i + 2]) for i, name in enumerate(names)}

    def __call__(self, count):
        """Runs `count` steps, or fewer if a flag was raised. Returns a Call."""
        start, end, launches, waited = self.next_step, self.next_step + count, [], 0.
        raised, began = np.zeros(self._flags.shape[0]), time.perf_counter()
        while self.next_step < end and not raised.any():
            launches.append(self._start(end))
            waited += self._advance()
            if len(launches) > 1:      # one launch ahead of the devices, and no more
                raised = launches[-2].flags()[:-1]
        *flags, seconds = launches[-1].flags()
        steps = self.next_step - start
        if self._has_compiled:
            self._measured = (time.perf_counter() - began) / steps
        self._has_compiled, self._step_seconds = True, seconds
        totals = np.concatenate([launch.totals() for launch in launches])                    # [steps, N, 2]
        return self._call(start, totals.astype(np.float64), waited / steps, np.maximum(raised, flags))

    def _start(self, end):
        """Launches the next steps, up to `end`, and within the block that is on the devices."""
        low = self.next_step - self._block_step
        wanted = max(1, int(LAUNCH_SECONDS / self._step_seconds)) if self._step_seconds else 1
        high = min(low + wanted, self.block_length, end - self._block_step)
        self.next_step = self._block_step + high
        return self.launch(low, high)

    def launch(self, low, high):
        """Launches steps `low` to `high` of the block that is on the devices. Returns before they end."""
        allowed = np.array([self._block_step + i not in self._banned for i in range(self.block_length)])
        # How long a step takes counts once: all hosts have it from the chief, and launch the same number of steps.
        flags = np.zeros([self._devices.local, self._flags.shape[0] + 1], np.float32)
        flags[:, :-1] = self._flags.numpy()
        flags[0, -1] = self._measured if self._devices.is_chief else 0.
        launch, captured = self._launch, self._launch.program.captured
        values = self._state.values(captured)
        changed, totals, raised = launch.call(
            [values[j] for j in launch.changed], [values[j] for j in launch.kept], self._block,
            np.int64(self._block_step), allowed, np.int32(low), np.int32(high), self._devices.put_rows(flags))
        self._state.take([captured[j] for j in launch.changed], changed)
        return _Launched(low, high, totals, raised)

    def _advance(self):
        """Goes to the next block after the last step of one. Returns the seconds that it was waited for."""
        if self.next_step < self._block_step + self.block_length:
            return 0.
        began = time.perf_counter()
        self._block, self._block_step = self._coming.result(), self.next_step
        waited = time.perf_counter() - began
        self._coming = self._sender.submit(next, self._blocks)
        return waited

    def _call(self, start, totals, waited, flags):
        steps = np.arange(start, start + len(totals))
        skipped = totals[:, self.step.totals_names.index('skipped'), 0] > 0
        bad = skipped & ~np.isin(steps, list(self._banned))
        run = len(bad) if bad.all() else int(np.argmin(bad[::-1]))
        sums = {name: [0., 0.] for name in self.step.totals_names}
        for one in totals:      # one after the other, so that how many are in a call changes no digit
            for name, (total, weight) in zip(sums, one):
                sums[name][0] += total
                sums[name][1] += weight
        return Call(len(totals), {name: (float(total), float(weight)) for name, (total, weight) in sums.items()},
                    waited, [float(flag) for flag in flags], int(steps[bad][0]) if bad.any() else NEVER, run)


class _Launched(NamedTuple):
    """Steps `low` to `high` of a block, which may still be computed."""
    low: int
    high: int
    all_totals: object
    all_flags: object

    def totals(self):
        return np.asarray(self.all_totals.addressable_data(0))[self.low:self.high]

    def flags(self):
        """float [F + 1], those of the last of the steps."""
        return np.asarray(self.all_flags.addressable_data(0))
