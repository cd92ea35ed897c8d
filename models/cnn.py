"""The convolutional network of the document in `documents/` (2.1.1)."""

import keras

from models.shapes import check_input_shape


def cnn(input_shape, outputs=10):
    """Image [B, H, W, C] -> logits [B, outputs], float32.

    With h = (H - 2) // 2 and w = (W - 2) // 2 it has 32 * (9 * C + 1) + 64 * (32 * h * w + 1) + 65 * outputs
    parameters: 1,969,738 for the document's (64, 64, 3) and 10 outputs.
    """
    # 4 pixels leave 2 after the 3x3 convolution, and 1 after the 2x2 pooling.
    check_input_shape(input_shape, '(height, width, channels), height and width at least 4', ranks=(3,), least=4)
    return keras.Sequential([
        keras.Input(input_shape, name='inputs'),
        keras.layers.Conv2D(32, 3, activation='relu', name='conv'),  # [B, H - 2, W - 2, 32]
        keras.layers.MaxPooling2D(2, name='pool'),  # [B, h, w, 32]
        keras.layers.Flatten(name='flatten'),  # [B, h * w * 32]
        keras.layers.Dense(64, activation='relu', name='hidden'),
        # The document ends in a softmax; logits are exact when saturated. float32 whatever the precision of the rest.
        keras.layers.Dense(outputs, dtype='float32', name='logits'),
    ], name='cnn')
