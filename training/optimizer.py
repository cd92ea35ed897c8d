"""Keras optimizers by name, made to update each replica's own copy of the weights.

Keras's distributed `apply` clips before the all-reduce, sums the gradients itself and merges replicas, so it cannot
stand inside a condition. Here the step all-reduces once; then every replica holds the same gradient and applies the
same update to its own copy. That is the same arithmetic on the same numbers, so the copies stay equal bit for bit.
"""

import inspect

import keras
import tensorflow as tf
# Private, because Keras offers no public name for the undistributed update; tests/training pins the behaviour.
from keras.src.optimizers.base_optimizer import BaseOptimizer

from errors import UserError, lookup
from training.schedules import Warmup


class ReplicaLocal(keras.optimizers.Optimizer):
    """The single-device update, in a replica context.

    As the last base of `class X(keras.optimizers.Nadam, ReplicaLocal)` it stands between Nadam, which may extend these
    methods, and Keras's distributed versions of them.
    """

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        values = [v.value for v in trainable_variables]      # what Keras's TensorFlow optimizer hands to update_step
        BaseOptimizer._backend_update_step(self, grads, values, learning_rate)

    def _apply_weight_decay(self, variables):
        BaseOptimizer._apply_weight_decay(self, variables)


def replica_local_variables():
    """A scope in which every new variable is updated by each replica on its own copy."""

    def creator(next_creator, **kwargs):
        return next_creator(**{**kwargs, 'aggregation': tf.VariableAggregation.NONE})
    return tf.variable_creator_scope(creator)


def optimizers():
    """name -> class of every optimizer that Keras exports and that can stand alone."""
    wrappers = (keras.optimizers.Optimizer, keras.optimizers.LossScaleOptimizer)
    return {name.lower(): cls for name, cls in vars(keras.optimizers).items()
            if inspect.isclass(cls) and issubclass(cls, keras.optimizers.Optimizer) and cls not in wrappers
            and 'Multi' not in name}


def make_optimizer(name, variables, learning_rate, *, weight_decay=0., ema=0., **options):
    """Builds the optimizer and its slots for `variables`, under the current strategy's scope.

    Weight decay is decoupled (arXiv:1711.05101) and leaves out vectors: biases and the scales of norms.

    Args:
        learning_rate: a number or a Keras schedule.
        options: momentum, nesterov, beta_2, epsilon; 0 or False is the optimizer's own.

    Raises:
        UserError: an unknown name, or an option that this optimizer does not have.
    """
    cls = lookup(optimizers(), name, 'optimizer')
    known = set(inspect.signature(cls).parameters)
    options = {option: value for option, value in options.items() if value}
    for option, value in options.items():
        if option not in known:
            raise UserError(f'`{option}` is not an option of {name}. Received: {option}={value}, optimizer={name}')
    # Some have a decay of their own by default, and Keras's AdamW refuses None.
    decay = weight_decay or (0. if name == 'adamw' else None)
    options.update({option: decay for option in ('weight_decay', 'adam_weight_decay') if option in known})
    options.update({'use_ema': True, 'ema_momentum': ema} if ema else {})
    with replica_local_variables():
        optimizer = type(cls.__name__, (cls, ReplicaLocal), {})(learning_rate, **options, name='optimizer')
        if weight_decay:
            optimizer.exclude_from_weight_decay(var_list=[v for v in variables if len(v.shape) < 2])
        optimizer.build(variables)
    return optimizer


def make_schedule(training, total_steps):
    """The learning rate of settings.Training over a run of `total_steps`."""
    if training.schedule in ('cosine', 'linear') and total_steps <= training.warmup_steps:
        raise UserError(f'`warmup_steps` must be below the length of the run, {total_steps:,} steps, for the schedule '
                        f'{training.schedule}. Received: warmup_steps={training.warmup_steps}')
    return Warmup(training.learning_rate, training.warmup_steps, training.schedule, total_steps)
