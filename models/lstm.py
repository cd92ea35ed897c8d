"""The recurrent network of the document in `documents/` (2.1.2): one LSTM (Hochreiter and Schmidhuber, 1997)."""

import keras
from keras import ops

from models.dropout import Dropout
from models.shapes import check_input_shape


def lstm(input_shape=None, outputs=10, vocabulary_size=None, length=None, units=50, bidirectional=False, dropout=0.):
    """Sequence [B, T, F], image [B, H, W, C] read row by row, or tokens -> logits [B, outputs], float32.

    With `input_shape`: an image is H steps of F = W * C features, and the state after the last step is what the logits
    see. There are 4 * U * (F + U + 1) + (U + 1) * outputs parameters for U units (4 gates): 16,310 for 28x28x1 images
    and 10 outputs.

    With `vocabulary_size` V and `length` T: {'ids': int32 [B, T], 'mask': bool [B, T]}, embedded in 2 * U dimensions;
    the logits see the largest state over the tokens of the text, element by element. That adds 2 * U * V parameters.

    Args:
        bidirectional: a second LSTM reads from the end. dropout: rate between the layers.
    """
    if vocabulary_size is None:
        return _of_sequences(input_shape, outputs, units, bidirectional, dropout)
    return _of_tokens(vocabulary_size, length, outputs, units, bidirectional, dropout)


def _of_sequences(input_shape, outputs, units, bidirectional, dropout):
    check_input_shape(input_shape, '(steps, features) or (height, width, channels)', ranks=(2, 3))
    layers = [keras.Input(input_shape, name='inputs')]
    if len(input_shape) == 3:
        height, width, channels = input_shape
        layers += [keras.layers.Reshape((height, width * channels), name='rows')]  # [B, H, W, C] -> [B, H, W * C]
    layers += [_recurrent(units, bidirectional)]  # [B, T, F] -> [B, U] or [B, 2 * U]
    if dropout:
        layers += [Dropout(dropout, name='dropout')]
    return keras.Sequential([*layers, _logits(outputs)], name='lstm')


def _of_tokens(vocabulary_size, length, outputs, units, bidirectional, dropout):
    ids = keras.Input((length,), dtype='int32', name='ids')
    mask = keras.Input((length,), dtype='bool', name='mask')
    x = keras.layers.Embedding(vocabulary_size, 2 * units, name='embedding')(ids)  # [B, T] -> [B, T, D]
    x = Dropout(dropout, name='embedding_dropout')(x)
    x = _recurrent(units, bidirectional, return_sequences=True)(x, mask=mask)  # [B, T, U or 2 * U]
    x = LargestState(name='largest_state')(x, mask)  # [B, U or 2 * U]
    x = Dropout(dropout, name='dropout')(x)
    return keras.Model({'ids': ids, 'mask': mask}, _logits(outputs)(x), name='lstm')


def _recurrent(units, bidirectional, **options):
    layer = keras.layers.LSTM(units, name='lstm', **options)
    return keras.layers.Bidirectional(layer, name='bidirectional') if bidirectional else layer


def _logits(outputs):
    # The document ends in a softmax; logits are exact when saturated. float32 whatever the precision of the rest.
    return keras.layers.Dense(outputs, dtype='float32', name='logits')


@keras.saving.register_keras_serializable(package='congruent')
class LargestState(keras.layers.Layer):
    """The largest value of each feature over the tokens: x [B, T, D], tokens bool [B, T] -> [B, D]."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True  # Keras's own masks end here

    def compute_mask(self, inputs, previous_mask=None):
        return None

    def call(self, x, tokens):
        # Every text has a token, its end, so the maximum is never that of nothing.
        return ops.max(ops.where(tokens[:, :, None], x, ops.cast(-1e4, x.dtype)), axis=1)
