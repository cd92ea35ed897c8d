"""What drives the devices: tf.distribute, or jax's runtime (training/pjrt), which is imported where it is used."""

from training.evaluation import Evaluator
from training.loop import StepRunner
from training.state import TrainState


def make_state(devices, model, *arguments):
    """A TrainState. Its arguments: the optimizer and the loss scale, or none to evaluate."""
    if devices.runtime == 'pjrt':
        from training.pjrt.state import PjrtState
        return PjrtState(devices, model, *arguments)
    return TrainState(model, *arguments)


def make_runner(devices, state, step, *arguments):
    """What runs a TrainStep on the devices. The arguments are those of a StepRunner from its `dataset_fn` on."""
    if devices.runtime == 'pjrt':
        from training.pjrt.runner import PjrtRunner
        return PjrtRunner(devices, state, step, *arguments)
    return StepRunner(devices.strategy, step, *arguments)


def make_evaluator(devices, state, step, *arguments):
    """What runs an EvaluationStep on the devices. The arguments are those of an Evaluator from its `dataset_fn` on."""
    if devices.runtime == 'pjrt':
        from training.pjrt.evaluation import PjrtEvaluator
        return PjrtEvaluator(devices, state, step, *arguments)
    return Evaluator(devices.strategy, step, *arguments)
