"""Whether XLA compiles the step: `--jit=auto` decides from measurement, `on` and `off` from the user."""

import importlib.metadata

from errors import UserError

# From `python -m benchmarks.jit --model=...` on 2 CPU cores, see benchmarks/results/jit_*.json. XLA fuses small dense
# nets, but its CPU loops and larger products are slower than TensorFlow's kernels.
FASTER_WITH_XLA_ON_CPU = {'mlp': True, 'lstm': False, 'transformer': False}
# Not measured on a GPU by us. cuDNN's LSTM cannot be compiled by XLA (keras issue 18456).
FASTER_WITH_XLA_ON_GPU = {'mlp': True, 'lstm': False, 'transformer': True}
IMPOSSIBLE = {'cnn': 'XLA has no deterministic gradient of max-pooling'}


def use_jit(choice, model, hardware):
    """Returns (bool, reason) for a flag value, a model's name and the hardware.

    Raises:
        UserError: XLA is asked for, and the installed TensorFlow has none for this hardware.
    """
    if hardware == 'tpu':
        return False, 'TPUStrategy compiles the whole step itself'
    if hardware == 'cpu' and choice != 'off' and _is_tpu_wheel():
        if choice == 'on':
            raise UserError('`jit` on needs XLA for the CPU, which the tensorflow-tpu wheel does not have. '
                            'Received: jit=on')
        return False, 'the tensorflow-tpu wheel has no XLA for the CPU'
    if choice != 'auto':
        return choice == 'on', 'asked for'
    if model in IMPOSSIBLE:
        return False, IMPOSSIBLE[model]
    measured = {'cpu': FASTER_WITH_XLA_ON_CPU, 'gpu': FASTER_WITH_XLA_ON_GPU}[hardware]
    faster = measured.get(model, hardware == 'gpu')
    comparison = f'{model} is {"faster" if faster else "slower"} with XLA on {hardware}'
    return faster, comparison + (', as measured' if hardware == 'cpu' and model in measured else ', we expect')


def _is_tpu_wheel():
    try:
        return bool(importlib.metadata.version('tensorflow-tpu'))
    except importlib.metadata.PackageNotFoundError:
        return False
