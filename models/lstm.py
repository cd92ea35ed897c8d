"""The recurrent network of the document in `documents/` (2.1.2): one LSTM (Hochreiter and Schmidhuber, 1997)."""

import keras

from models.shapes import check_input_shape


def lstm(input_shape, outputs=10):
    """Sequence [B, T, F], or image [B, H, W, C] read row by row -> logits [B, outputs], float32.

    An image is H steps of F = W * C features. There are 4 * (50 * F + 50 * 50 + 50) + 51 * outputs parameters
    (4 gates): 16,310 for 28x28x1 images and 10 outputs.
    """
    check_input_shape(input_shape, '(steps, features) or (height, width, channels)', ranks=(2, 3))
    layers = [keras.Input(input_shape, name='inputs')]
    if len(input_shape) == 3:
        height, width, channels = input_shape
        layers += [keras.layers.Reshape((height, width * channels), name='rows')]  # [B, H, W, C] -> [B, H, W * C]
    return keras.Sequential(layers + [
        keras.layers.LSTM(50, name='lstm'),  # [B, T, F] -> [B, 50], the state after the last step
        # The document ends in a softmax; logits are exact when saturated. float32 whatever the precision of the rest.
        keras.layers.Dense(outputs, dtype='float32', name='logits'),
    ], name='lstm')
