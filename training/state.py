"""A run's whole state: weights, optimizer slots (the moving average among them), the loss scale, and the mean of
checkpoints' weights once it has begun, by name.

With the step number this is all that a checkpoint holds: data order and randomness follow from the step.
"""

import contextlib
import hashlib

import numpy as np

from errors import RunError


class TrainState:
    def __init__(self, model, optimizer=None, loss_scale=None):
        self._averages, self._trainable, self._mean = [], model.trainable_variables, {}
        named = [(f'model/{v.path}', v.value) for v in model.weights]
        if optimizer is not None:
            averages = getattr(optimizer, '_model_variables_moving_average', None) or []
            self._averages = [(v.value, a.value) for v, a in zip(model.trainable_variables, averages)]
            named += [(f'average/{v.path}', a.value) for v, a in zip(model.trainable_variables, averages)]
            named += [(f'optimizer/{v.path}', v.value) for v in optimizer.variables
                      if all(v is not average for average in averages)]
        if loss_scale is not None:
            named += [(f'loss_scale/{v.name.split(":")[0]}', v) for v in loss_scale.variables]
        self.variables = dict(named)
        if len(self.variables) != len(named):
            names = [name for name, _ in named]
            raise ValueError(f'Variables must have distinct paths. Received twice: '
                             f'{sorted({name for name in names if names.count(name) > 1})}')

    def pull(self, *variables):
        """Brings TensorFlow's variables, or some, up to date, where they are not the state itself (training/pjrt)."""

    def arrays(self):
        """{name: numpy array}, copied: training may continue while they are written."""
        return {name: _local(variable) for name, variable in self.variables.items()} | self._mean

    def restore(self, arrays, file='the checkpoint'):
        """Assigns the arrays to the variables of the same names.

        Args:
            file: where they are from, for the message of an error.

        Raises:
            RunError: they are not those of this model and optimizer. No variable has changed.
        """
        averaged = {f'average/{v.path}': v.value for v in self._trainable}
        means = {name: averaged[name] for name in arrays if name in averaged and name not in self.variables}
        if problem := _mismatch(self.variables | means, arrays):
            raise RunError(f'{file} does not fit this run: {problem}')
        for name, variable in self.variables.items():
            variable.assign(arrays[name])
        self._mean = {name: arrays[name] for name in means}

    def start_from(self, weights):
        """Assigns {path: array} to variables of the model, and to their moving averages."""
        for path, value in weights.items():
            for name in (f'model/{path}', f'average/{path}'):
                if name in self.variables:
                    self.variables[name].assign(value)

    def add_to_mean(self, count):
        """Takes the weights as they are for the `count`-th of those whose mean evaluation and export use."""
        for variable in self._trainable:
            value, name = _local(variable.value), f'average/{variable.path}'
            before = self._mean[name] if count > 1 else np.zeros_like(value)
            self._mean[name] = before + (value - before) / np.asarray(count, value.dtype)

    @contextlib.contextmanager
    def averaged(self):
        """While it is open, the model holds the average of its weights, if there is one."""
        averages = [(variable, _local(average)) for variable, average in self._averages] + [
            (v.value, self._mean[f'average/{v.path}']) for v in self._trainable if self._mean]
        raw = [_local(variable) for variable, _ in averages]
        for variable, average in averages:
            variable.assign(average)
        try:
            yield
        finally:
            for (variable, _), value in zip(averages, raw):
                variable.assign(value)

    def sha256(self):
        """SHA-256 over name, dtype, shape and bytes of every weight and average, sorted by name."""
        return hash_arrays({name: value for name, value in self.arrays().items()
                            if name.startswith(('model/', 'average/'))})


def hash_arrays(arrays):
    """SHA-256 over name, dtype, shape and bytes of each of {name: numpy array}, sorted by name."""
    digest = hashlib.sha256()
    for name, value in sorted(arrays.items()):
        value = np.ascontiguousarray(value)
        digest.update(f'{name} {value.dtype} {value.shape}'.encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def inference_arrays(arrays):
    """The arrays of a checkpoint that evaluate and serve the model: averaged weights where there are any."""
    return {name: arrays.get(name.replace('model/', 'average/', 1), value)
            for name, value in arrays.items() if name.startswith('model/')}


def _mismatch(variables, arrays):
    """The first name, of {name: variable} and {name: array}, at which they differ in kind; '' if there is none."""
    for names, where in ((variables.keys() - arrays.keys(), 'here'), (arrays.keys() - variables.keys(), 'there')):
        if names:
            return f'{min(names)} is only {where}' + (f', and {len(names) - 1} more' if len(names) > 1 else '')
    for name, variable in sorted(variables.items()):
        here = f'{np.dtype(variable.dtype.as_numpy_dtype)} {list(variable.shape)}'
        there = f'{arrays[name].dtype} {list(arrays[name].shape)}'
        if here != there:
            return f'{name} is {there} there, {here} here'
    return ''


def _local(variable):
    """A copy of the value of this worker's first replica: all replicas are equal (see optimizer.py)."""
    return np.array(getattr(variable, 'values', (variable,))[0])
