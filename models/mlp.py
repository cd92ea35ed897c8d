"""A multilayer perceptron for images or vectors, after the network of the document in `documents/` (2.1)."""

import keras

from models.shapes import check_input_shape


def mlp(input_shape, outputs=10):
    """Input [B, ...] -> logits [B, outputs], float32.

    With N = product(input_shape) inputs it has 257 * 128 + 256 * (N + 1) + 129 * outputs parameters:
    235,146 for 784 inputs and 10 outputs.
    """
    check_input_shape(input_shape, 'positive sizes, such as (784,) or (28, 28, 1)', ranks=range(1, 8))
    return keras.Sequential([
        keras.Input(input_shape, name='inputs'),
        keras.layers.Flatten(name='flatten'),  # [B, ...] -> [B, N]
        keras.layers.Dense(256, activation='relu', name='hidden_1'),
        keras.layers.Dense(128, activation='relu', name='hidden_2'),
        # Logits, for a loss that is exact when saturated; float32 whatever the precision of the rest.
        keras.layers.Dense(outputs, dtype='float32', name='logits'),
    ], name='mlp')
