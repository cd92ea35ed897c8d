"""What to know of a step whose gradient is not finite: its examples, its loss, the gradient's norm layer by layer."""

import math

import tensorflow as tf

MAX_EXAMPLES = 4096     # indices in a report


def describe_step(model, runner, examples, step):
    """Computes the gradients of a step once more, from the present weights. Only moving statistics change.

    Args:
        runner: a StepRunner, or training/pjrt's, whose place in the data is moved to `step`.
        examples: function (step) -> indices of the step's examples, in the order of the global batch.

    Returns:
        JSON-able dict. A number that is not finite is the string 'nan', 'inf' or '-inf'.
    """
    broken = [v.path for v in model.weights if not _finite(v)]      # before the forward pass, which moves some
    runner.seek(step)
    norms, totals = runner.gradient_norms(step)
    loss, weight = (float(number) for number in totals['loss'])
    norms = {v.path: float(norm) / weight for v, norm in zip(model.trainable_variables, norms)} if weight else {}
    indices = [int(index) for index in examples(step)]
    return {'step': step, 'loss': _number(loss / weight if weight else math.nan), 'weight': weight,
            'gradient_norms': {path: _number(norm) for path, norm in norms.items()},
            'not_finite_weights': broken,
            'batch_size': len(indices), 'examples': indices[:MAX_EXAMPLES]}


def _finite(variable):
    value = getattr(variable.value, 'values', (variable.value,))[0]
    return bool(tf.reduce_all(tf.math.is_finite(tf.cast(value, tf.float32))))


def _number(value):
    return value if math.isfinite(value) else str(value)
