"""Bilinear enlargement by a whole factor, as products with two constant matrices."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package='congruent')
class BilinearUpsampling(keras.layers.Layer):
    """Features [B, H, W, C] -> [B, factor * H, factor * W, C]: pixels are areas, and edges are repeated.

    The function of keras.layers.UpSampling2D(factor, interpolation='bilinear'). XLA refuses the gradient of that one's
    operation in bfloat16, and takes minutes to compile it for a GPU.
    """

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        _, height, width, channels = x.shape
        rows, columns = (ops.cast(shares(side, self.factor), x.dtype) for side in (height, width))
        x = ops.matmul(rows, ops.reshape(x, (-1, height, width * channels)))             # [B, factor * H, W * C]
        return ops.matmul(columns, ops.reshape(x, (-1, height * self.factor, width, channels)))

    def compute_output_shape(self, shape):
        b, height, width, channels = shape
        return b, height * self.factor, width * self.factor, channels

    def get_config(self):
        return {**super().get_config(), 'factor': self.factor}


def shares(side, factor):
    """float32 [factor * side, side]: how much each pixel counts in each of the enlarged."""
    middle = ops.clip((ops.arange(side * factor, dtype='float32') + 0.5) / factor - 0.5, 0, side - 1)
    return ops.maximum(1. - ops.abs(middle[:, None] - ops.arange(side, dtype='float32')), 0.)
