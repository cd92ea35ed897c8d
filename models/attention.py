"""Scaled dot-product attention as in the document in `documents/` (2.1.3), and multi-head attention around it.

Both are section 3.2 of "Attention Is All You Need", arXiv:1706.03762. Letters in the shapes: B examples, T queries,
S keys, D = d_model, h heads, d = D / h. In every mask 1 means "may not look there".
"""

import keras
from keras import ops

from models.dropout import Dropout


def padding_mask(tokens):
    """Hides padding: bool [B, S], True where a token is -> mask [B, 1, 1, S]."""
    return ops.cast(ops.logical_not(tokens), 'float32')[:, None, None, :]


def causal_mask(length, queries=None):
    """Hides the future: position t sees positions 0 .. t. -> mask [1, 1, T, T], or its rows at `queries`, int32 [Q]."""
    positions = ops.arange(length, dtype='int32')
    queries = positions if queries is None else queries
    return ops.cast(queries[:, None] < positions[None, :], 'float32')[None, None]


def segment_mask(queries, keys):
    """Hides other segments of a packed row, and padding: segments [B, T] and [B, S] -> mask [B, 1, T, S].

    Segments are numbered from 1; 0 is padding, which sees only padding.
    """
    return ops.cast(ops.not_equal(queries[:, :, None], keys[:, None, :]), 'float32')[:, None]


def positions_in_segments(segments):
    """Each token's position in its own segment, from 0: segments [B, T] -> int32 [B, T]."""
    mine = ops.equal(segments[:, :, None], segments[:, None, :])  # [B, T, T]
    positions = ops.arange(ops.shape(segments)[1], dtype='int32')
    earlier = ops.logical_and(mine, positions[None, :] < positions[:, None])
    return ops.sum(ops.cast(earlier, 'int32'), axis=-1)


def scaled_dot_product_attention(q, k, v, mask=None, dropout=None):
    """softmax(q k^T / sqrt(d) + mask * -1e9) v, equation 1 of the paper with the document's additive mask.

    q [..., T, d], k and v [..., S, d], mask broadcastable to [..., T, S] -> output [..., T, d], weights [..., T, S].
    `dropout` is a function applied to the weights that make the output, not to those that are returned.
    """
    # Scaling q and not the product keeps the product within the range of float16.
    logits = ops.matmul(q / k.shape[-1]**0.5, ops.swapaxes(k, -1, -2))  # [..., T, S]
    # float32 under any policy: float16 ends at 65504 and cannot hold -1e9, and the softmax sums over S.
    logits = ops.cast(logits, 'float32')
    if mask is not None:
        # Not `+= mask * -1e9`, the same sum: without XLA, TensorFlow fuses the product and that sum into a kernel that
        # takes 8 times as long where the mask is broadcast (2.21, oneDNN on a CPU).
        logits -= ops.cast(mask, 'float32') * 1e9
    weights = ops.cast(ops.softmax(logits, axis=-1), v.dtype)
    return ops.matmul(dropout(weights) if dropout else weights, v), weights


@keras.saving.register_keras_serializable(package='congruent')
class MultiHeadAttention(keras.layers.Layer):
    """Attention in `heads` subspaces of d = d_model / heads dimensions, section 3.2.2 of arXiv:1706.03762.

    The four projections have no bias, as in the paper: 4 * d_model**2 parameters; with `use_bias` 4 * d_model more.

    Args:
        d_model: Integer, size of the queries, the memory and the output.
        heads: Integer, must divide `d_model`.
        dropout: Float, rate of dropout on the attention weights. The paper does not mention it; the authors' own
            code (tensor2tensor) has it.
        use_bias: Boolean, whether the projections have biases, as BERT's, GPT-2's and BART's.

    Example:

    ```python
    attention = MultiHeadAttention(d_model=128, heads=4)
    output = attention(x, x, causal_mask(x.shape[1]))
    ```
    """

    tap = None      # set by interpretability/taps.py: a function that is called with the attention weights

    def __init__(self, d_model, heads, dropout=0.0, use_bias=False, **kwargs):
        super().__init__(**kwargs)
        if d_model % heads:
            raise ValueError(f'`d_model` must be divisible by `heads`. Received: d_model={d_model}, heads={heads}')
        self.d_model = d_model
        self.heads = heads
        self.dropout = dropout
        self.use_bias = use_bias
        self.query = self._projection('query')
        self.key = self._projection('key')
        self.value = self._projection('value')
        self.output_projection = self._projection('output_projection')
        self.weights_dropout = Dropout(dropout, dtype=self.dtype_policy, name='weights_dropout')

    def _projection(self, name):
        return keras.layers.Dense(self.d_model, use_bias=self.use_bias, dtype=self.dtype_policy, name=name)

    def build(self, query_shape, memory_shape):
        self.query.build(query_shape)
        self.key.build(memory_shape)
        self.value.build(memory_shape)
        self.output_projection.build((*query_shape[:-1], self.d_model))
        self.weights_dropout.build((query_shape[0], self.heads, query_shape[1], memory_shape[1]))

    # --- Forward ---

    def call(self, query, memory, attention_mask=None, training=False):
        """query [B, T, D], memory [B, S, D] -> [B, T, D].

        `attention_mask` is broadcastable to [B, h, T, S]. It is not called `mask`, because Keras takes an argument of
        that name for its own padding masks, where 1 means the opposite.
        """
        return self.attend(query, *self.keys_values(memory), attention_mask, training)

    def keys_values(self, memory):
        """memory [B, S, D] -> keys and values, both [B, h, S, d]: all that the queries see of it."""
        return self._split(self.key(memory)), self._split(self.value(memory))

    def attend(self, query, k, v, attention_mask=None, training=False):
        """query [B, T, D], k and v from `keys_values` -> output [B, T, D]."""
        q = self._split(self.query(query))  # [B, h, T, d]
        output, weights = scaled_dot_product_attention(
            q, k, v, attention_mask, dropout=lambda weights: self.weights_dropout(weights, training=training))
        if self.tap is not None:
            self.tap(weights)
        return self.output_projection(self._merge(output))

    def _split(self, x):
        batch, length, _ = ops.shape(x)
        x = ops.reshape(x, (batch, length, self.heads, self.d_model // self.heads))  # [B, T, D] -> [B, T, h, d]
        return ops.transpose(x, (0, 2, 1, 3))  # [B, h, T, d]

    def _merge(self, x):
        batch, _, length, _ = ops.shape(x)
        x = ops.transpose(x, (0, 2, 1, 3))  # [B, h, T, d] -> [B, T, h, d]
        return ops.reshape(x, (batch, length, self.d_model))  # [B, T, D]

    # --- Config ---

    def get_config(self):
        return {**super().get_config(), 'd_model': self.d_model, 'heads': self.heads, 'dropout': self.dropout,
                'use_bias': self.use_bias}
