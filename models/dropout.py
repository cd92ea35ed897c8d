"""Dropout whose mask can be a function of the step and of the example's place in the global batch."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package='congruent')
class Dropout(keras.layers.Dropout):
    """`keras.layers.Dropout`, until a trainer sets `keep_mask`.

    Keras draws a mask from a counter that each replica owns a copy of: N replicas draw one and the same mask, and
    not the one that a single device would draw for the global batch. A trainer that wants a run not to depend on
    its number of devices sets `layer.keep_mask` to a function of (seed, step, position in the global batch). Each
    replica then draws its slice of the one global mask, and a resumed run draws the same masks again.

    `keep_mask(shape, rate)` returns a boolean tensor of that (static) shape, True = keep. It is an attribute and
    not an argument, because it belongs to the run and not to the model: it is not saved. In a built model every
    Dropout has a `path` of its own, the same in every process, from which to derive masks of its own.
    """

    keep_mask = None

    def call(self, inputs, training=False):
        if training and self.rate == 1:     # the layer of Keras 3.13 refuses it here
            return ops.zeros_like(inputs)
        if self.keep_mask is None or not training or self.rate == 0:
            return super().call(inputs, training=training)
        mask = self.keep_mask(self._mask_shape(inputs), self.rate)
        return ops.where(mask, inputs / (1 - self.rate), ops.zeros_like(inputs))

    def _mask_shape(self, inputs):
        noise_shape = self.noise_shape or inputs.shape
        return tuple(size if noise is None else noise for noise, size in zip(noise_shape, inputs.shape, strict=True))
