"""A run's state on the devices of a mesh: TensorFlow's variables are brought up to date where they are read."""

import contextlib

import jax
import numpy as np

from training.pjrt.program import value_of
from training.state import TrainState


class PjrtState(TrainState):
    """A TrainState whose arrays lie on devices, a copy on each, once a program has taken them."""

    def __init__(self, devices, *arguments):
        super().__init__(*arguments)
        self._sharding, self._arrays, self._newer, self._evaluates = devices.on_all, {}, set(), False
        self._others = {}      # what programs read beside the state
        self.evaluations = {}      # the programs of PjrtEvaluators
        self._names = {id(variable): name for name, variable in self.variables.items()}

    # --- For programs ---

    def values(self, captured):
        """The jax arrays of what a program captured, in its order. While `averaged` is open, averages of weights."""
        return [self._value(variable) for variable in captured]

    def take(self, variables, arrays):
        """Takes the new values of variables that a program updated, jax arrays."""
        for variable, array in zip(variables, arrays, strict=True):
            name = self._names.get(id(variable))
            if name is None:
                self._others[id(variable)] = variable, array
            else:
                self._arrays[name] = array
                self._newer.add(name)

    def _value(self, variable):
        name = self._names.get(id(variable))
        if name is None:
            if id(variable) not in self._others:      # with the variable, so that no other one gets its id
                self._others[id(variable)] = variable, self._put(value_of(variable))
            return self._others[id(variable)][1]
        average = name.replace('model/', 'average/', 1)
        if self._evaluates and average in self._mean:
            return self._put(self._mean[average])
        name = average if self._evaluates and average in self.variables else name
        if name not in self._arrays:
            self._arrays[name] = self._put(value_of(self.variables[name]))
        return self._arrays[name]

    def _put(self, array):
        return jax.make_array_from_callback(array.shape, self._sharding, lambda index: array[index])

    # --- For the host ---

    def pull(self, *variables):
        """Assigns what the devices hold to TensorFlow's variables: to these, or to all."""
        wanted = {self._names[id(getattr(v, 'value', v))] for v in variables} if variables else self._newer
        for name in wanted & self._newer:
            self.variables[name].assign(np.asarray(self._arrays[name].addressable_data(0)))
            self._newer.discard(name)

    def arrays(self):
        self.pull()
        return super().arrays()

    def restore(self, *arguments):
        super().restore(*arguments)
        self._forget()

    def start_from(self, weights):
        self.pull()
        super().start_from(weights)
        self._forget()

    def add_to_mean(self, count):
        self.pull(*self._trainable)
        super().add_to_mean(count)

    @contextlib.contextmanager
    def averaged(self):
        self._evaluates = True
        try:
            yield
        finally:
            self._evaluates = False

    def _forget(self):
        self._arrays, self._others, self._newer = {}, {}, set()
