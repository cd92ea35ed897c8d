"""Whether XLA compiles the step: `--jit=auto` decides from measurement, `on` and `off` from the user."""

# From `python -m benchmarks.jit --model=...` on 2 CPU cores, see benchmarks/results/jit_*.json. XLA fuses small dense
# nets, but its CPU loops and larger products are slower than TensorFlow's kernels. The cnn cannot have it (trainer.py).
FASTER_WITH_XLA_ON_CPU = {'mlp': True, 'cnn': False, 'lstm': False, 'transformer': False}
# Not measured on a GPU by us. XLA has no deterministic gradient of the cnn's max-pooling, and cuDNN's LSTM cannot be
# compiled by XLA (keras issue 18456).
FASTER_WITH_XLA_ON_GPU = {'mlp': True, 'cnn': False, 'lstm': False, 'transformer': True}


def use_jit(choice, model, kind):
    """Returns (bool, reason) for a flag value, a model's name and the hardware's kind."""
    if kind == 'tpu':
        return False, 'TPUStrategy compiles the whole step itself'
    if choice != 'auto':
        return choice == 'on', 'asked for'
    measured = {'cpu': FASTER_WITH_XLA_ON_CPU, 'gpu': FASTER_WITH_XLA_ON_GPU}[kind]
    faster = measured.get(model, kind == 'gpu')
    return faster, f'{model} is {"faster" if faster else "slower"} with XLA on {kind}' + \
        (', as measured' if kind == 'cpu' else ', we expect')
