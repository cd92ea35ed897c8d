"""The parts of a Transformer around attention: "Attention Is All You Need", arXiv:1706.03762, sections 3.1, 3.3-3.5.

Letters in the shapes: B examples, T and S positions, D = d_model, V words, h heads.
"""

import math

import keras
from keras import ops

from errors import UserError
from models.attention import MultiHeadAttention
from models.dropout import Dropout


@keras.saving.register_keras_serializable(package='congruent')
def gelu(x):
    """x times the normal distribution's cumulative function at x, arXiv:1606.08415."""
    return keras.activations.gelu(x, approximate=False)


@keras.saving.register_keras_serializable(package='congruent')
def gelu_tanh(x):
    """Its approximation by a hyperbolic tangent, which the code of BERT and GPT-2 has."""
    return keras.activations.gelu(x, approximate=True)


ACTIVATIONS = {'gelu': gelu, 'gelu_tanh': gelu_tanh}


def sinusoidal_positions(length, d_model, start=0):
    """`sinusoids` of the positions start .. start + length - 1; `start` may be a tensor. -> [T, D], float32."""
    return sinusoids(ops.arange(length, dtype='float32') + ops.cast(start, 'float32'), d_model)


def sinusoids(positions, d_model):
    """PE(pos, 2i) = sin(pos / 10000^(2i / D)), PE(pos, 2i + 1) = cos(the same), section 3.5.

    positions [T] or [B, T], of any type -> [T, D] or [B, T, D], float32.
    """
    frequencies = ops.exp(ops.arange(0, d_model, 2, dtype='float32') * (-math.log(10000) / d_model))  # [D / 2]
    angles = ops.cast(positions, 'float32')[..., None] * frequencies  # [..., D / 2]
    pairs = ops.stack([ops.sin(angles), ops.cos(angles)], axis=-1)  # [..., D / 2, 2]
    return ops.reshape(pairs, (*ops.shape(positions), d_model))


@keras.saving.register_keras_serializable(package='congruent')
class TokenEmbedding(keras.layers.Layer):
    """One table [V, D] that embeds words and, transposed, scores them (section 3.4): V * D parameters.

    deviation: of the first values; None is D**-0.5. scale: whether embeddings are multiplied by sqrt(D).
    """

    lookup = None      # set by training/lookups.py: a function (table, ids) that is called in place of `ops.take`

    def __init__(self, vocabulary_size, d_model, deviation=None, scale=True, **kwargs):
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size
        self.d_model = d_model
        self.deviation = deviation
        self.scale = scale

    def build(self, input_shape=None):
        # D**-0.5 gives both the scaled embeddings and the logits a variance near 1 at the start. Never cast on access,
        # because the logits want it in full precision.
        self.table = self.add_weight(
            name='table', shape=(self.vocabulary_size, self.d_model), autocast=False,
            initializer=keras.initializers.RandomNormal(stddev=self.deviation or self.d_model**-0.5))

    # --- Forward ---

    def call(self, ids, reverse=False):
        """ids [B, T] -> [B, T, D]; with `reverse`, x [B, T, D] -> `logits`."""
        if reverse:
            return self.logits(ids)
        # Keras, as it saves a SavedModel, traces a subclassed model with inputs of a float type.
        ids = ops.cast(ids, 'int32')
        rows = ops.take(self.table, ids, axis=0) if self.lookup is None else self.lookup(self.table, ids)
        rows = ops.cast(rows, self.compute_dtype)
        return rows * self.d_model**0.5 if self.scale else rows

    def logits(self, x):
        """x [B, T, D] -> [B, T, V], float32 under any policy, since a loss sums over V."""
        return ops.matmul(ops.cast(x, 'float32'), ops.transpose(ops.cast(self.table, 'float32')))

    # --- Config ---

    def get_config(self):
        return {**super().get_config(), 'vocabulary_size': self.vocabulary_size, 'd_model': self.d_model,
                'deviation': self.deviation, 'scale': self.scale}


class TransformerLayer(keras.layers.Layer):
    """What the encoder's and the decoder's layer have in common: the feed-forward network and the connections.

    Every sub-layer is wrapped as `x = before(i, x) -> sub-layer -> after(i, x, y)`: residual connection, LayerNorm
    (section 3.1) and dropout (5.4). norm='post' is the paper's LayerNorm(x + Sublayer(x)); norm='pre' is
    x + Sublayer(LayerNorm(x)).

    activation: of the feed-forward network: relu, gelu (exact) or gelu_tanh, its approximation, or another of Keras's.
    """

    SUBLAYERS = ()

    def __init__(self, d_model, d_ff, heads, dropout=0.1, norm='pre', activation='relu', use_bias=False, epsilon=1e-6,
                 **kwargs):
        super().__init__(**kwargs)
        if norm not in ('pre', 'post'):
            raise UserError(f"`norm` must be 'pre' or 'post'. Received: norm={norm!r}")
        self.d_model = d_model
        self.d_ff = d_ff
        self.heads = heads
        self.dropout = dropout
        self.norm = norm
        self.activation = activation
        self.use_bias = use_bias
        self.epsilon = epsilon
        policy = self.dtype_policy
        self.norms = [layer_norm(f'{name}_norm', policy, epsilon) for name in self.SUBLAYERS]
        self.dropouts = [Dropout(dropout, dtype=policy, name=f'{name}_dropout') for name in self.SUBLAYERS]
        self.feed_forward_in = keras.layers.Dense(d_ff, ACTIVATIONS.get(activation, activation), dtype=policy,
                                                  name='feed_forward_in')
        self.feed_forward_out = keras.layers.Dense(d_model, dtype=policy, name='feed_forward_out')

    def attention(self, name):
        return MultiHeadAttention(self.d_model, self.heads, self.dropout, self.use_bias, dtype=self.dtype_policy,
                                  name=name)

    def build(self, x_shape):
        for layer in (*self.norms, *self.dropouts, self.feed_forward_in):
            layer.build(x_shape)
        self.feed_forward_out.build((*x_shape[:-1], self.d_ff))

    # --- Forward ---

    def before(self, i, x):
        return self.norms[i](x) if self.norm == 'pre' else x

    def after(self, i, x, y, training):
        x = x + self.dropouts[i](y, training=training)
        return self.norms[i](x) if self.norm == 'post' else x

    def feed_forward(self, x):
        return self.feed_forward_out(self.feed_forward_in(x))  # [B, T, D] -> [B, T, F] -> [B, T, D], equation 2

    # --- Config ---

    def get_config(self):
        return {**super().get_config(), 'd_model': self.d_model, 'd_ff': self.d_ff, 'heads': self.heads,
                'dropout': self.dropout, 'norm': self.norm, 'activation': self.activation,
                'use_bias': self.use_bias, 'epsilon': self.epsilon}


def layer_norm(name, dtype, epsilon=1e-6):
    return keras.layers.LayerNormalization(epsilon=epsilon, dtype=dtype, name=name)  # by default tensor2tensor's


@keras.saving.register_keras_serializable(package='congruent')
class EncoderLayer(TransformerLayer):
    """Self-attention and feed-forward network: 4 * D**2 + (2 * D * F + F + D) + 4 * D parameters."""

    SUBLAYERS = ('self_attention', 'feed_forward')

    def __init__(self, d_model, d_ff, heads, dropout=0.1, norm='pre', activation='relu', use_bias=False, epsilon=1e-6,
                 **kwargs):
        super().__init__(d_model, d_ff, heads, dropout, norm, activation, use_bias, epsilon, **kwargs)
        self.self_attention = self.attention('self_attention')

    def build(self, x_shape):
        super().build(x_shape)
        self.self_attention.build(x_shape, x_shape)

    def call(self, x, self_mask=None, training=False):
        """x [B, S, D] -> [B, S, D]."""
        y = self.before(0, x)
        y = self.self_attention(y, y, self_mask, training=training)
        x = self.after(0, x, y, training)
        y = self.feed_forward(self.before(1, x))
        return self.after(1, x, y, training)


@keras.saving.register_keras_serializable(package='congruent')
class DecoderLayer(TransformerLayer):
    """Self-attention, attention to the memory, feed-forward: 8 * D**2 + (2 * D * F + F + D) + 6 * D parameters."""

    SUBLAYERS = ('self_attention', 'cross_attention', 'feed_forward')

    def __init__(self, d_model, d_ff, heads, dropout=0.1, norm='pre', activation='relu', use_bias=False, epsilon=1e-6,
                 **kwargs):
        super().__init__(d_model, d_ff, heads, dropout, norm, activation, use_bias, epsilon, **kwargs)
        self.self_attention = self.attention('self_attention')
        self.cross_attention = self.attention('cross_attention')

    def build(self, x_shape, memory_shape):
        super().build(x_shape)
        self.self_attention.build(x_shape, x_shape)
        self.cross_attention.build(x_shape, memory_shape)

    def call(self, x, memory, self_mask=None, cross_mask=None, training=False):
        """x [B, T, D], memory [B, S, D] -> [B, T, D]."""
        y = self.before(0, x)
        y = self.self_attention(y, y, self_mask, training=training)
        return self._after_self_attention(x, y, self.cross_attention.keys_values(memory), cross_mask, training)

    def start_cache(self, memory, length, beams=1):
        """memory [B, S, D] -> its keys and values [B, h, S, d], and room [B * K, h, T, d] for those of the targets.

        Each source has K = `beams` targets of T = `length` positions.
        """
        keys, values = self.cross_attention.keys_values(memory)
        batch, heads, _, size = ops.shape(keys)
        empty = ops.zeros((batch * beams, heads, length, size), keys.dtype)
        return {'self_keys': empty, 'self_values': empty, 'cross_keys': keys, 'cross_values': values}

    def step(self, x, t, cache, self_mask, cross_mask):
        """`call` for position t (int32 [1]) of K targets: x [B, K, D] -> [B, K, D] and the cache with t filled in.

        In self-attention each target is an example of its own. All look at the same source: there they are K queries.
        """
        y = ops.reshape(self.before(0, x), (-1, 1, self.d_model))  # [B * K, 1, D]
        keys, values = self.self_attention.keys_values(y)  # [B * K, h, 1, d]
        # `where` copies the cache, but attention reads all of it anyway: `ops.slice_update` is no faster on a CPU, and
        # TensorFlow knows it as an operation of XLA's only.
        here = ops.equal(ops.arange(cache['self_keys'].shape[2], dtype='int32'), t)[:, None]  # [T, 1]
        cache = {**cache, 'self_keys': ops.where(here, keys, cache['self_keys']),
                 'self_values': ops.where(here, values, cache['self_values'])}
        y = self.self_attention.attend(y, cache['self_keys'], cache['self_values'], self_mask)
        y = ops.reshape(y, (-1, x.shape[1], self.d_model))  # [B, K, D]
        source = cache['cross_keys'], cache['cross_values']
        return self._after_self_attention(x, y, source, cross_mask, training=False), cache

    def _after_self_attention(self, x, y, source, cross_mask, training):
        """x [B, T, D], self-attention's y [B, T, D], the source's (keys, values) -> [B, T, D]."""
        x = self.after(0, x, y, training)
        y = self.cross_attention.attend(self.before(1, x), *source, cross_mask, training)
        x = self.after(1, x, y, training)
        y = self.feed_forward(self.before(2, x))
        return self.after(2, x, y, training)
