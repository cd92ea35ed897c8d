"""The signatures of a task that hold numbers only: what runtimes without strings and image decoders can run."""

import keras
import tensorflow as tf


class Plain(tf.Module):
    """{name: tf.function} of a task's plain signatures, and the variables that they read.

    Attributes:
        functions: {signature: tf.function of the tensors of its `specs`}.
        specs: {signature: [tf.TensorSpec]}.

    Args:
        task, model: as for a SavedModel. batch_size: static number of examples; 0 is any.
    """

    def __init__(self, task, model, batch_size=0):
        super().__init__()
        self.batch_size = batch_size
        self.variables_ = [getattr(variable, 'value', variable) for variable in model.weights]
        signatures = {name: signature for name, signature in task.serving(model).items()
                      if not any(spec.dtype == tf.string for spec in signature[1])}
        self.specs = {name: [_with_batch(spec, batch_size) for spec in specs]
                      for name, (_, specs) in signatures.items()}
        self.functions = {name: tf.function(_numbers(function), input_signature=self.specs[name])
                          for name, (function, _) in signatures.items()}

    def outputs(self, name):
        """{output: tf.TensorSpec} of a signature, in order of name, as functions give them back."""
        outputs = self.functions[name].get_concrete_function().structured_outputs
        return {output: tf.TensorSpec.from_tensor(outputs[output]) for output in sorted(outputs)}


def _numbers(function):
    def numbers(*inputs):
        return {name: value for name, value in function(*inputs).items() if value.dtype != tf.string}
    return numbers


def _with_batch(spec, batch_size):
    return tf.TensorSpec([batch_size or None, *spec.shape[1:]], spec.dtype, spec.name)


def without_cudnn(model):
    """Keras takes cuDNN's LSTM where it sees a GPU; nothing else has that operation. Returns the model."""
    for layer in model._flatten_layers():
        if getattr(layer, 'use_cudnn', False):
            layer.use_cudnn = False
    return model


def is_recurrent(model):
    return any(isinstance(layer, keras.layers.RNN) for layer in model._flatten_layers())
