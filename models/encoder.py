"""A Transformer's encoder that classifies texts: arXiv:1706.03762, section 3, without the decoder."""

import keras
from keras import ops

from models.attention import padding_mask
from models.dropout import Dropout
from models.transformer_layers import EncoderLayer, TokenEmbedding, layer_norm, sinusoidal_positions


def encoder(vocabulary_size, length, outputs, num_layers, d_model, d_ff, heads, dropout, norm):
    """{'ids': int32 [B, T], 'mask': bool [B, T]} -> logits [B, outputs], float32.

    The mean of the last layer's outputs over the text's tokens is what the logits see. With L layers of D and F there
    are V * D + L * (4 * D**2 + 2 * D * F + F + 5 * D) + (D + 1) * outputs parameters, and 2 * D more for norm='pre'.
    """
    ids = keras.Input((length,), dtype='int32', name='ids')
    mask = keras.Input((length,), dtype='bool', name='mask')
    x = TokenEmbedding(vocabulary_size, d_model, name='tokens')(ids)  # [B, T] -> [B, T, D]
    x = Dropout(dropout, name='tokens_dropout')(AddPositions(name='positions')(x))
    hidden = HidePadding(name='hide_padding')(mask)  # [B, 1, 1, T]
    for i in range(num_layers):
        x = EncoderLayer(d_model, d_ff, heads, dropout, norm, name=f'encoder_{i}')(x, hidden)
    if norm == 'pre':
        x = layer_norm('encoder_norm', None)(x)
    x = Dropout(dropout, name='mean_dropout')(MeanOfTokens(name='mean')(x, mask))  # [B, T, D] -> [B, D]
    # Logits, for a loss that is exact when saturated; float32 whatever the precision of the rest.
    return keras.Model({'ids': ids, 'mask': mask}, keras.layers.Dense(outputs, dtype='float32', name='logits')(x),
                       name='transformer')


@keras.saving.register_keras_serializable(package='congruent')
class AddPositions(keras.layers.Layer):
    """Adds the sinusoids of section 3.5: x [B, T, D] -> [B, T, D]."""

    def call(self, x):
        return x + ops.cast(sinusoidal_positions(x.shape[1], x.shape[2]), x.dtype)


@keras.saving.register_keras_serializable(package='congruent')
class HidePadding(keras.layers.Layer):
    """tokens bool [B, T], True where one is -> attention mask [B, 1, 1, T], 1 at padding."""

    def call(self, tokens):
        return padding_mask(tokens)


@keras.saving.register_keras_serializable(package='congruent')
class MeanOfTokens(keras.layers.Layer):
    """x [B, T, D], tokens bool [B, T] -> the mean over the tokens, [B, D], summed in float32."""

    def call(self, x, tokens):
        weights = ops.cast(tokens, 'float32')[:, :, None]  # [B, T, 1]
        total = ops.sum(ops.cast(x, 'float32') * weights, axis=1)
        return ops.cast(total / ops.maximum(ops.sum(weights, axis=1), 1.), x.dtype)
