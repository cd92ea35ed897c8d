"""Layers that a TPU cannot run, each with one fault: a dynamic shape, a string, a call back into Python."""

import keras
import tensorflow as tf


class Dynamic(keras.layers.Layer):
    def call(self, x):
        kept = tf.boolean_mask(x, x > 0)     # the dynamic line: its length depends on the values
        return x + tf.reduce_sum(kept)


class String(keras.layers.Layer):
    def call(self, x):
        text = tf.strings.as_string(x)       # the string line
        return x + tf.cast(tf.strings.length(text), x.dtype)


class Host(keras.layers.Layer):
    def call(self, x):
        seen = tf.numpy_function(lambda a: a, [x], x.dtype)      # the host line
        return tf.ensure_shape(seen, x.shape)


LAYERS = {'dynamic': Dynamic, 'string': String, 'host': Host}


def builder(*faults):
    """A function for models.MODELS."""
    def build(input_shape, outputs=10):
        return keras.Sequential([keras.Input(input_shape), keras.layers.Flatten(),
                                 *(LAYERS[fault](name=fault) for fault in faults),
                                 keras.layers.Dense(outputs, dtype='float32', name='logits')])
    return build
