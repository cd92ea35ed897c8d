"""Whether XLA compiles the step: `--jit=auto` decides from the built model's layers, `on` and `off` from the user."""

import importlib.metadata

import keras

from errors import UserError

# Measured on 2 CPU cores, `python -m benchmarks.jit --model=...`: seconds a step with XLA over without are 0.95 for the
# mlp, and 1.23 for the lstm, 1.15 for the transformer, 2.8 for the cnn: XLA fuses small dense nets, but its loops,
# convolutions and larger products are slower than TensorFlow's kernels. Compiling the mlp's step takes 4.8 s and saves
# 0.29 ms a step.
FASTER_ON_CPU = (keras.layers.InputLayer, keras.layers.Flatten, keras.layers.Dense)
PAYS_AFTER_STEPS = 16_000


def use_jit(choice, model, kernels, replicas, steps, deterministic=True):
    """Decides whether XLA compiles the step.

    Args:
        choice: auto, on or off.
        model: a built Keras model.
        kernels: cpu or gpu; or xla, where all replicas are one program of XLA's.
        replicas: how many of them share a step, over all workers.
        steps: the length of the whole run, which a resume does not change: nor does it change the decision.
        deterministic: whether equal inputs must give equal bits.

    Returns:
        (bool, reason)

    Raises:
        UserError: `choice` is on, and XLA cannot compile a layer, or TensorFlow has no XLA for the hardware.
    """
    if kernels == 'xla':
        return False, 'the whole step is a program of XLA anyway'
    if choice == 'off':
        return False, 'asked for'
    if kernels == 'cpu' and _is_tpu_wheel():
        if choice == 'on':
            raise UserError('`jit` on needs XLA for the CPU, which the tensorflow-tpu wheel does not have. '
                            'Received: jit=on')
        return False, 'the tensorflow-tpu wheel has no XLA for the CPU'
    if obstacle := _obstacle(model, kernels, replicas, deterministic):
        if choice == 'on':
            raise UserError(f'`jit` must be off for this model: {obstacle}. Received: jit=on')
        return False, obstacle
    if choice == 'on':
        return True, 'asked for'
    return _expected_to_pay(model, steps) if kernels == 'cpu' else _expected_to_be_faster(model, deterministic)


def _obstacle(model, hardware, replicas, deterministic):
    """Names the first layer that XLA cannot compile, and why; empty if there is none."""
    poolings = keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D
    for layer in model._flatten_layers():
        if isinstance(layer, poolings) and deterministic:
            return f'XLA has no deterministic gradient of max-pooling ({layer.name})'
        if isinstance(layer, keras.layers.BatchNormalization) and replicas > 1:
            return f'XLA cannot hold the all-reduce of BatchNormalization on {replicas} replicas ({layer.name})'
        if hardware == 'gpu' and _uses_cudnn(layer):
            return f'XLA cannot compile the cuDNN kernel of {type(layer).__name__} ({layer.name})'
    return ''


def _uses_cudnn(layer):
    """Whether Keras computes the layer with cuDNN's kernel on a GPU: its defaults, nothing changed in the cell."""
    if not isinstance(layer, (keras.layers.LSTM, keras.layers.GRU)) or layer.use_cudnn is False:
        return False
    cell = layer.cell
    functions = cell.activation, cell.recurrent_activation
    return (functions == (keras.activations.tanh, keras.activations.sigmoid) and cell.use_bias
            and getattr(cell, 'reset_after', True) and not layer.unroll and not cell.recurrent_dropout)


def _expected_to_pay(model, steps):
    """(bool, reason) on a CPU."""
    layers = (layer for layer in model._flatten_layers() if not isinstance(layer, keras.Model))
    if other := next((layer for layer in layers if not isinstance(layer, FASTER_ON_CPU)), None):
        return False, f'on a cpu it was measured to be faster for dense layers only ({other.name} is another)'
    if steps < PAYS_AFTER_STEPS:
        return False, f'on a cpu it pays after {PAYS_AFTER_STEPS:,} steps of a model of dense layers, as measured'
    return True, f'on a cpu it is faster for dense layers, and pays after {PAYS_AFTER_STEPS:,} steps, as measured'


def _expected_to_be_faster(model, deterministic):
    """(bool, reason) on a GPU. Layers with a `lookup` have another gradient there, see lookups.py."""
    for layer in model._flatten_layers():
        if deterministic and isinstance(layer, keras.layers.Embedding):
            return False, f'XLA makes the deterministic gradient of an Embedding slow on a gpu ({layer.name})'
    return True, 'expected to be faster on a gpu'


def _is_tpu_wheel():
    try:
        return bool(importlib.metadata.version('tensorflow-tpu'))
    except importlib.metadata.PackageNotFoundError:
        return False
