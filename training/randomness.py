"""Makes a model's random layers draw as a function of (seed, step, position in the global batch), see draws.py.

Keras layers draw from a SeedGenerator whose state is a variable: hidden state that must be saved, and the same on all
replicas, so replicas share their dropout masks. Here every draw is computed, and a replica draws just its own rows of
the mask that one device would have drawn for the whole batch.
"""

import contextlib
import threading

import keras
import tensorflow as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig
from tensorflow.python.eager import context as tensorflow_context
from tensorflow.python.framework import config as tensorflow_config

from draws import Draws
from errors import UserError

_current = threading.local()   # MirroredStrategy traces each replica in a thread of its own


@contextlib.contextmanager
def at(seed, step, first_row):
    """While it is open, the layers of an `install`ed model draw for these rows of this step."""
    before = getattr(_current, 'draws', None)
    _current.draws = Draws(seed, step, first_row), {}
    try:
        yield
    finally:
        _current.draws = before


def install(model):
    """Makes every random layer of the model draw from the open `at`. Returns the model.

    A layer's draws are named after its path, so that they do not depend on the layers around it.
    """
    for layer in model._flatten_layers():
        if hasattr(layer, 'keep_mask'):
            layer.keep_mask = _keep_mask(layer.path)
        elif isinstance(getattr(layer, 'seed_generator', None), keras.random.SeedGenerator):
            layer.seed_generator.next = _next_seed(layer.path)
    return model


def _next_seed(path):
    """For Keras's own random layers: a seed from (seed, step, replica). Replicas differ, a resume does not."""
    def next_seed(ordered=True):
        draws, name = _next_draw(path)
        key, _ = draws.key(name)
        mixed = tf.bitcast(key, tf.int32)[0] + tf.cast(draws.first_row, tf.int32)     # uint64 [1] -> int32 [2]
        return tf.cast(tf.bitwise.bitwise_and(mixed, 0x7fffffff), tf.int64)
    return next_seed


def _keep_mask(path):
    def keep_mask(shape, rate):
        draws, name = _next_draw(path)
        return draws.bits(name, tuple(shape)) >= tf.constant(int(rate * 2 ** 32), tf.uint32)
    return keep_mask


def _next_draw(path):
    """(Draws, name) of a layer's next draw: a shared layer draws more than once per step."""
    current = getattr(_current, 'draws', None)
    if current is None:
        raise RuntimeError('A random layer was called in training outside training.randomness.at')
    draws, counts = current
    counts[path] = counts.get(path, -1) + 1
    return draws, f'{path} {counts[path]}'


def make_deterministic(kernels='cpu', choice='auto'):
    """Equal inputs give equal bits (E2), in this process, from now on; not where choice is off.

    Args:
        kernels: cpu, gpu or xla, as Devices.kernels.

    Returns:
        bool, whether they do.

    Raises:
        UserError: choice is off, and the hardware or this process has no way to be so.
    """
    if choice == 'off':
        if kernels == 'xla':
            raise UserError('`deterministic` off is for CPU and GPU by runtime tensorflow: a TPU, and a program of '
                            'XLA, have equal bits at no cost. Received: deterministic=off')
        if tensorflow_config.is_op_determinism_enabled():
            raise UserError('`deterministic` off needs a process of its own: in this one determinism is on, which '
                            'TensorFlow cannot undo. Received: deterministic=off')
        return False
    if kernels != 'xla':      # which is so by itself; and XLA then refuses the gradient of max-pooling
        tf.config.experimental.enable_op_determinism()
        _keep_the_order_of_sums()
    return True


def _keep_the_order_of_sums():
    """Turns an optimizer of TensorFlow's graphs off, which op determinism forgets and no public option names.

    Where a graph needs 80% of a device's memory, taken as 256 MiB on a CPU, it adds three and more tensors in the order
    in which they are ready (MemoryOptimizer, tensorflow/core/grappler/optimizers/memory_optimizer.cc).
    """
    context = tensorflow_context.context()
    config = tf.compat.v1.ConfigProto() if context._config is None else context._config
    config.graph_options.rewrite_options.memory_optimization = RewriterConfig.NO_MEM_OPT
    context._config = config
    context.function_call_options = None      # of this thread: they are made anew, of this configuration
