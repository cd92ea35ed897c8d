"""Exact evaluation on the devices of a mesh: as training/evaluation.py, one launch per batch."""

import numpy as np
import tensorflow as tf

from errors import Stopped
from training import interrupt
from training.evaluation import collect
from training.pjrt import lowering
from training.pjrt.program import launch_once, made_of

ASKED = 8      # batches between two looks at the flags of several hosts, which all look together


class PjrtEvaluator:
    """As training.evaluation.Evaluator. devices: a strategies.pjrt.PjrtDevices. state: a PjrtState."""

    def __init__(self, devices, state, step, dataset_fn, batches, source):
        self._devices, self._state, self._step = devices, state, step
        self._dataset_fn, self._batches, self._source = dataset_fn, batches, source
        self._slices, self._asked = None, ASKED if devices.workers > 1 else 1

    def __call__(self, flags=None):
        """Returns {name: value}. Raises Stopped where a flag was raised, on any host."""
        if self._slices is None:
            self._prepare()
        return collect(self._results(flags), self._step.task, self._source)

    def _prepare(self):
        self._slices = self._dataset_fn(self._devices.input_context()).take(self._batches * self._devices.local)
        specs, programs = self._slices.element_spec, self._state.evaluations
        key = (self._step, *tf.nest.flatten(specs))      # splits have batches of one form, and share a program
        if key not in programs:
            programs[key] = self._lower(specs)
        self._captured, self._launch, self._structure = programs[key]

    def _lower(self, specs):
        """(what the program reads, a function that launches it, the structure of what it returns)."""
        lowered, structure = lowering.evaluation(self._devices.strategy, self._step, specs)
        program = made_of(lowered)
        return program.captured, launch_once(self._devices.mesh, program), structure

    def _results(self, flags):
        """(totals, answers) of each batch, one behind the devices."""
        state, before = self._state.values(self._captured), None
        for number, fields in enumerate(self._slices.batch(self._devices.local).prefetch(2)):
            if number % self._asked == 0:
                self._stop_if_asked(flags)
            batch = [self._devices.put_block(field.numpy(), 1) for field in tf.nest.flatten(fields)]
            here = self._launch(batch, (), state)
            if before is not None:
                yield self._arrays(before)
            before = here
        yield self._arrays(before)
        self._stop_if_asked(flags)

    def _arrays(self, outputs):
        flat = [np.asarray(output.addressable_data(0)) for output in outputs]
        return tf.nest.pack_sequence_as(self._structure, flat)

    def _stop_if_asked(self, flags):
        if flags is None:
            return
        if stopped_by := interrupt.cause(self._devices.sum_over_hosts(flags.numpy())):
            raise Stopped(stopped_by)
