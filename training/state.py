"""A run's whole state: weights, optimizer slots (the moving average among them) and the loss scale, by name.

With the step number this is all that a checkpoint holds: data order and randomness follow from the step.
"""

import contextlib
import hashlib

import numpy as np


class TrainState:
    def __init__(self, model, optimizer=None, loss_scale=None):
        self._averages = []
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

    def arrays(self):
        """{name: numpy array}, copied: training may go on while they are written."""
        return {name: _local(variable) for name, variable in self.variables.items()}

    def restore(self, arrays):
        """Assigns the arrays to the variables of the same names; extra arrays (optimizer slots) are left unread."""
        missing = [name for name in self.variables if name not in arrays]
        if missing:
            raise ValueError(f'The checkpoint lacks {missing[0]} and {len(missing) - 1} more variables of this model')
        for name, variable in self.variables.items():
            if tuple(variable.shape) != arrays[name].shape:
                raise ValueError(f'{name} has shape {tuple(variable.shape)} here, '
                                 f'{arrays[name].shape} in the checkpoint')
            variable.assign(arrays[name])

    @contextlib.contextmanager
    def averaged(self):
        """While it is open, the model holds the moving average of its weights, if the optimizer keeps one."""
        raw = [_local(variable) for variable, _ in self._averages]
        for variable, average in self._averages:
            variable.assign(_local(average))
        try:
            yield
        finally:
            for (variable, _), value in zip(self._averages, raw):
                variable.assign(value)

    def sha256(self):
        """Of the weights, trainable or moving, and their averages: names, types, shapes and bytes, in order of name."""
        digest = hashlib.sha256()
        for name, variable in sorted(self.variables.items()):
            if name.startswith(('model/', 'average/')):
                value = np.ascontiguousarray(_local(variable))
                digest.update(f'{name} {value.dtype} {value.shape}'.encode())
                digest.update(value.tobytes())
        return digest.hexdigest()


def inference_arrays(arrays):
    """Of a checkpoint's arrays, those of the model to evaluate and serve: averaged weights where there are any."""
    return {name: arrays.get(name.replace('model/', 'average/', 1), value)
            for name, value in arrays.items() if name.startswith('model/')}


def _local(variable):
    """A copy of the value of this worker's first replica: all replicas are equal (see optimizer.py)."""
    return np.array(getattr(variable, 'values', (variable,))[0])
