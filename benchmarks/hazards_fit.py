"""What Keras's own `fit` and `evaluate` do in the cases of benchmarks/hazards.py."""

import pathlib
import re
import tempfile

import keras
import numpy as np

from benchmarks import hazards_cases as cases
from data.rows import prepared
from experiment import parts
from strategies import selection
from training import randomness

EPOCHS, STOPPED_AFTER = 3, 1      # of the run that is stopped and resumed
# In messages: colours, code marks, values, files, types, devices in full, numbers of variables, and what stands before
# the first error when both replicas' reach Python.
NOISE = re.compile(r'\x1b\[\d+m|`|:\{.*?\}| \(defined @ [^)]*\)| \(<class [^)]*\)|/job:\w+/replica:\d/task:\d/device:|'
                   r'(?<=/replica_\d)/\d+|^\d+ root error\(s\) found\.$|^ *\(\d\) [A-Z_]+: +',
                   flags=re.DOTALL | re.MULTILINE)


def measure():
    """{row: measured}, for the rows that need no process of their own."""
    devices = _devices()
    randomness.make_deterministic()
    rows = {'clipping': _clipping, 'dropout': _dropout, 'overflow': _overflow, 'partial': _partial,
            'batch_norm': _batch_norm, 'resume': _resume, 'accumulation': _accumulation}
    return {name: row(devices) for name, row in rows.items()}


def measure_xla():
    """{device: outcome}. A process of its own: where operations must be deterministic, Keras turns XLA off."""
    return {name: _outcome(d, jit_compile=True) for name, d in _devices().items()}


def measure_worker(devices):
    """In one of the processes that TF_CONFIG names. Returns the outcome."""
    return _outcome(devices)


def _devices():
    return {'one': selection.select('cpu'), 'two': selection.select('cpu', virtual_devices=2)}


def _fit(case, devices, **options):
    """The model after training on the case. options: of the optimizer."""
    with devices.strategy.scope():
        model = case.build()
        optimizer = keras.optimizers.SGD(case.learning_rate, **options)
        if model.layers[-1].compute_dtype == 'float16':
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        model.compile(optimizer, 'mse', jit_compile=False)
    model.fit(case.x, case.y, batch_size=case.batch_size, epochs=case.epochs, shuffle=False, verbose=0)
    return model


def _w(model):
    """The first weight of the layer named w, on each replica."""
    return [float(copy.ravel()[0]) for copy in cases.copies(model.get_layer('w').kernel)]


def _clipping(devices):
    return {name: _w(_fit(cases.clipping(), d, global_clipnorm=1.))[0] for name, d in devices.items()}


def _dropout(devices):
    alike = {}
    for name, d in devices.items():
        first, second = cases.masks(_fit(cases.dropout(keras.layers.Dropout), d).get_layer('w').kernel)
        alike[name] = int(np.sum(first == second))
    return {**alike, 'units': cases.UNITS}


def _overflow(devices):
    return {name: cases.as_text(_w(_fit(cases.overflow(row), devices[d]))) for name, row, d in cases.OVERFLOWS}


def _partial(devices):
    measured = {}
    for name, d in devices.items():
        measured[name] = _w(_fit(cases.partial_batch(), d))[0]
        padded = cases.padded_batch()
        with d.strategy.scope():
            model = padded.build()
            model.compile(loss=keras.losses.MeanSquaredError(reduction='mean_with_sample_weight'), jit_compile=False)
        measured[f'loss_{name}'] = model.evaluate(padded.x, padded.y, sample_weight=padded.weights,
                                                  batch_size=padded.batch_size, verbose=0)
    return measured


def _batch_norm(devices):
    measured = {}
    for name, d in devices.items():
        case = cases.batch_norm(keras.layers.BatchNormalization)
        model = _fit(case, d)
        with tempfile.TemporaryDirectory() as folder:
            model.save(pathlib.Path(folder) / 'model.keras')
            loaded = keras.models.load_model(pathlib.Path(folder) / 'model.keras')
        losses = [m.evaluate(case.x, case.y, batch_size=case.batch_size, verbose=0) for m in (model, loaded)]
        means = [float(copy[0]) for copy in cases.copies(model.get_layer('norm').moving_mean)]
        measured |= {f'means_{name}': means, f'trained_{name}': losses[0], f'loaded_{name}': losses[1]}
    return measured


class _Stop(Exception):
    pass


class _StopAfter(keras.callbacks.Callback):
    def __init__(self, epochs):
        super().__init__()
        self._epochs = epochs

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self._epochs:
            raise _Stop


def _fit_net(devices, epochs, callbacks=(), jit_compile=False, **options):
    """The weights after training on the diabetes set. options: of the optimizer."""
    x, y = _diabetes()
    training = cases.DIABETES.training
    with devices.strategy.scope():
        model = cases.net(keras.layers.Dropout)
        model.compile(keras.optimizers.Adam(training.learning_rate, **options), 'mse', jit_compile=jit_compile)
    try:
        model.fit(x, y, batch_size=training.batch_size, epochs=epochs, verbose=0, callbacks=list(callbacks))
    except _Stop:
        pass
    return model.get_weights()


def _diabetes():
    dataset, task = parts.open_data(cases.DIABETES)
    rows = prepared(task.rows(dataset.train))
    return rows['x'], rows['y']


def _resume(devices):
    """Stopped at the end of an epoch, the only place where BackupAndRestore keeps to by default."""
    measured = {}
    for name, d in devices.items():
        whole, again = _fit_net(d, EPOCHS), _fit_net(d, EPOCHS)
        with tempfile.TemporaryDirectory() as folder:
            _fit_net(d, EPOCHS, [keras.callbacks.BackupAndRestore(folder), _StopAfter(STOPPED_AFTER)])
            resumed = _fit_net(d, EPOCHS, [keras.callbacks.BackupAndRestore(folder)])
        measured |= {name: cases.max_difference(whole, resumed), f'again_{name}': cases.max_difference(whole, again)}
    return measured


def _accumulation(devices):
    return {name: _outcome(d, gradient_accumulation_steps=2) for name, d in devices.items()}


def _outcome(devices, **options):
    """'trains', or the error in a few words."""
    try:
        _fit_net(devices, 1, **options)
    except Exception as error:      # what it raises is what is measured
        return f'{type(error).__name__}: {_cause(error)}'
    return 'trains'


def _cause(error):
    """The first sentence that says what happened, without what differs from run to run or from machine to machine."""
    lines = NOISE.sub('', str(error)).splitlines()
    frames = ('Exception encountered', 'Graph execution error', 'Detected at', '  File')
    told = next(line for line in lines if line.strip() and not line.startswith(frames))
    return told.split('. ')[0].rstrip('.')
