"""The encoder-decoder Transformer of "Attention Is All You Need", arXiv:1706.03762.

The document in `documents/` (2.1.3) gives its attention and leaves the encoder and the decoder out. Letters in the
shapes: B examples, S source and T target positions, D = d_model, V words, h heads.
"""

import keras
from keras import ops

from errors import UserError
from models.attention import causal_mask, padding_mask, positions_in_segments, segment_mask
from models.dropout import Dropout
from models.transformer_layers import (DecoderLayer, EncoderLayer, TokenEmbedding, layer_norm, sinusoidal_positions,
                                       sinusoids)

# base and big: table 3 of the paper. tiny and small: ours, for a laptop.
SIZES = {
    'tiny': {'num_layers': 2, 'd_model': 128, 'd_ff': 512, 'heads': 4, 'dropout': 0.1},
    'small': {'num_layers': 4, 'd_model': 256, 'd_ff': 1024, 'heads': 8, 'dropout': 0.1},
    'base': {'num_layers': 6, 'd_model': 512, 'd_ff': 2048, 'heads': 8, 'dropout': 0.1},
    'big': {'num_layers': 6, 'd_model': 1024, 'd_ff': 4096, 'heads': 16, 'dropout': 0.3},
}


def transformer(source_vocabulary_size, target_vocabulary_size, size='tiny', dropout=None, norm='pre',
                share_embeddings=False):
    """A built `Transformer` of a named size; `dropout` replaces that of the size.

    With L layers of D and F: L * (12 * D**2 + 4 * D * F + 2 * F + 12 * D) parameters, 4 * D more for norm='pre', and
    D per word of each vocabulary (of the one vocabulary when shared). For norm='pre' and two vocabularies of 1,000:

    | size  | L | D    | F    | heads | dropout | parameters  |
    |-------|---|------|------|-------|---------|-------------|
    | tiny  | 2 | 128  | 512  | 4     | 0.1     | 1,179,136   |
    | small | 4 | 256  | 1024 | 8     | 0.1     | 7,873,536   |
    | base  | 6 | 512  | 2048 | 8     | 0.1     | 45,127,680  |
    | big   | 6 | 1024 | 4096 | 16    | 0.3     | 178,335,744 |
    """
    if size not in SIZES:
        raise UserError(f'`size` must be one of {", ".join(SIZES)}. Received: size={size!r}')
    config = SIZES[size] if dropout is None else {**SIZES[size], 'dropout': dropout}
    model = Transformer(source_vocabulary_size, target_vocabulary_size, norm=norm, share_embeddings=share_embeddings,
                        name='transformer', **config)
    model.build({'source': (None, None), 'target': (None, None)})
    return model


@keras.saving.register_keras_serializable(package='congruent')
class Transformer(keras.Model):
    """{'source': int [B, S], 'target': int [B, T]}, 0 = padding -> logits [B, T, target words], float32.

    `target` is what the decoder has read so far; logits [:, t] score the word after target[:, t].

    A row may hold several pairs, one after the other (arXiv:2107.02027). Then 'source_segments', int [B, S], and
    'target_segments', int [B, T], number them from 1, 0 for padding. Each pair's logits are what they are alone.

    Deviations from the paper:
    - norm='pre' (default) normalises the input of each sub-layer, and the output of both stacks once more, instead
      of each sub-layer's sum. Such a model trains without a long warm-up (arXiv:2002.04745). norm='post' is the paper.
    - Dropout also on the attention weights, as in the authors' own code (tensor2tensor).
    - Source and target share their embeddings only if `share_embeddings`, which asks for one vocabulary.

    Where the paper is silent we follow tensor2tensor: Glorot's uniform kernels, embeddings of deviation D**-0.5 (the
    first logits then have a variance near 1), and LayerNorm's epsilon.

    Args:
        source_vocabulary_size: Integer, number of source words, padding included.
        target_vocabulary_size: Integer, number of target words, padding included.
        num_layers: Integer, layers in the encoder, and as many in the decoder.
        d_model: Integer, size of the representation: even, and divisible by `heads`.
        d_ff: Integer, hidden size of the feed-forward networks.
        heads: Integer.
        dropout: Float in [0, 1).
        norm: 'pre' or 'post'.
        share_embeddings: Boolean, one table for source and target.
    """

    def __init__(self, source_vocabulary_size, target_vocabulary_size, num_layers, d_model, d_ff, heads, dropout=0.1,
                 norm='pre', share_embeddings=False, **kwargs):
        super().__init__(**kwargs)
        self.source_vocabulary_size = source_vocabulary_size
        self.target_vocabulary_size = target_vocabulary_size
        self.num_layers = num_layers
        self.d_model = d_model
        self.d_ff = d_ff
        self.heads = heads
        self.dropout = dropout
        self.norm = norm
        self.share_embeddings = share_embeddings
        self._check()
        self._make_embeddings()
        self.encoder = self._stack(EncoderLayer, 'encoder')
        self.decoder = self._stack(DecoderLayer, 'decoder')
        if norm == 'pre':
            self.encoder_norm = layer_norm('encoder_norm', self.dtype_policy)
            self.decoder_norm = layer_norm('decoder_norm', self.dtype_policy)

    def _check(self):
        if self.d_model % 2:
            raise UserError(f'`d_model` must be even, for pairs of sine and cosine. Received: d_model={self.d_model}')
        if not 0 <= self.dropout < 1:
            raise UserError(f'`dropout` must be at least 0 and below 1. Received: dropout={self.dropout}')
        if self.share_embeddings and self.source_vocabulary_size != self.target_vocabulary_size:
            raise UserError('`share_embeddings` needs vocabularies of equal size. Received: source_vocabulary_size='
                            f'{self.source_vocabulary_size}, target_vocabulary_size={self.target_vocabulary_size}')

    def _make_embeddings(self):
        name = 'shared_embedding' if self.share_embeddings else 'target_embedding'
        policy = self.dtype_policy
        self.target_embedding = TokenEmbedding(self.target_vocabulary_size, self.d_model, dtype=policy, name=name)
        self.source_embedding = self.target_embedding if self.share_embeddings else TokenEmbedding(
            self.source_vocabulary_size, self.d_model, dtype=policy, name='source_embedding')
        self.source_dropout = Dropout(self.dropout, dtype=policy, name='source_dropout')
        self.target_dropout = Dropout(self.dropout, dtype=policy, name='target_dropout')

    def _stack(self, layer, name):
        return [layer(self.d_model, self.d_ff, self.heads, self.dropout, self.norm, dtype=self.dtype_policy,
                      name=f'{name}_{i}') for i in range(self.num_layers)]

    def build(self, input_shape):
        x_shape = (None, None, self.d_model)
        self.target_embedding.build()
        if not self.share_embeddings:
            self.source_embedding.build()
        for layer in (self.source_dropout, self.target_dropout, *self.encoder):
            layer.build(x_shape)
        for layer in self.decoder:
            layer.build(x_shape, x_shape)
        if self.norm == 'pre':
            self.encoder_norm.build(x_shape)
            self.decoder_norm.build(x_shape)

    # --- Forward ---

    def call(self, inputs, training=False):
        segments = self._segments(inputs)
        memory = self.encode(inputs['source'], training, segments=segments[0])
        return self.decode(inputs['target'], memory, inputs['source'], training, segments=segments)

    def encode(self, source, training=False, weights=None, segments=None):
        """source [B, S] -> memory [B, S, D]; a dict given as `weights` gets the attention weights."""
        weights = {} if weights is None else weights
        mask = padding_mask(source) if segments is None else segment_mask(segments, segments)  # [B, 1, 1 or S, S]
        x = self._embed(self.source_embedding, source, segments)  # [B, S, D]
        x = self.source_dropout(x, training=training)
        for layer in self.encoder:
            x, weights[f'{layer.name}/self_attention'] = layer(x, self_mask=mask, training=training)
        return self.encoder_norm(x) if self.norm == 'pre' else x

    def decode(self, target, memory, source, training=False, weights=None, segments=(None, None)):
        """target [B, T], memory [B, S, D], source [B, S] (for its padding) -> logits [B, T, V], float32.

        segments: of the source and of the target, where a row holds several pairs.
        """
        weights = {} if weights is None else weights
        of_source, of_target = segments
        # Padding ends a target, so that the causal mask already hides it from every word. Hiding it again would leave
        # a target that starts with 0 nothing to look at in its first row, and then the softmax looks everywhere.
        masks = {'self_mask': causal_mask(ops.shape(target)[1]), 'cross_mask': padding_mask(source)}
        if of_target is not None:
            masks = {'self_mask': ops.maximum(masks['self_mask'], segment_mask(of_target, of_target)),
                     'cross_mask': segment_mask(of_target, of_source)}
        x = self._embed(self.target_embedding, target, of_target)  # [B, T, D]
        x = self.target_dropout(x, training=training)
        for layer in self.decoder:
            x, self_weights, cross_weights = layer(x, memory, training=training, **masks)
            weights[f'{layer.name}/self_attention'] = self_weights
            weights[f'{layer.name}/cross_attention'] = cross_weights
        return self._logits(x)

    def start_cache(self, memory, source, length, beams=1):
        """memory [B, S, D], source [B, S] (for its padding) -> what `decode_step` needs for targets of `length` words.

        A dict of lists and dicts of tensors, whose shapes stay the same in each step, so that a compiled loop can carry
        it. With `beams` K, an integer, there are K targets of each source: row b * K + k of what is kept of the
        targets is target k of source b. What is kept of the sources is kept once.
        """
        return {'cross_mask': padding_mask(source), 'layers': [layer.start_cache(memory, length, beams)
                                                               for layer in self.decoder]}

    def decode_step(self, token, t, cache):
        """`decode` for one position: token [B] = target[:, t] -> logits [B, V], float32, and the cache for t + 1.

        For K targets of each source, token [B, K] -> logits [B, K, V]. The positions 0 .. t - 1 must be in the cache,
        each from a step of its own; t is an int32 scalar < `length`.
        """
        t = ops.reshape(t, (1,))
        beams = tuple(token.shape[1:])  # () or (K,)
        length = cache['layers'][0]['self_keys'].shape[2]
        masks = {'self_mask': causal_mask(length, queries=t), 'cross_mask': cache['cross_mask']}
        x = self._embed(self.target_embedding, ops.reshape(token, (-1, 1)), start=t)  # [B * K, 1, D]
        x = ops.reshape(x, (-1, *(beams or (1,)), self.d_model))  # [B, K, D]
        layers = []
        for layer, layer_cache in zip(self.decoder, cache['layers'], strict=True):
            x, layer_cache = layer.step(x, t, layer_cache, **masks)
            layers.append(layer_cache)
        logits = ops.reshape(self._logits(x), (-1, *beams, self.target_vocabulary_size))
        return logits, {**cache, 'layers': layers}

    def reorder_cache(self, cache, parent):
        """Target k of source b becomes what target parent[b, k] was: parent int32 [B, K] -> the cache."""
        batch, beams = ops.shape(parent)
        rows = ops.reshape(parent + beams * ops.arange(batch, dtype='int32')[:, None], (-1,))  # [B * K]
        layers = [{name: ops.take(value, rows, axis=0) if name.startswith('self_') else value
                   for name, value in layer.items()} for layer in cache['layers']]
        return {**cache, 'layers': layers}

    def attention_weights(self, inputs):
        """What each layer looks at, by its name: [B, h, S, S], [B, h, T, T] (self) and [B, h, T, S] (cross)."""
        weights, segments = {}, self._segments(inputs)
        memory = self.encode(inputs['source'], weights=weights, segments=segments[0])
        self.decode(inputs['target'], memory, inputs['source'], weights=weights, segments=segments)
        return weights

    def _segments(self, inputs):
        segments = inputs.get('source_segments'), inputs.get('target_segments')
        if (segments[0] is None) != (segments[1] is None):
            raise UserError('`inputs` of packed rows need source_segments and target_segments. '
                            f'Received: inputs={", ".join(inputs)}')
        return segments

    def _embed(self, embedding, ids, segments=None, start=0):
        x = embedding(ids)  # [B, T] -> [B, T, D]
        positions = (sinusoidal_positions(ops.shape(ids)[1], self.d_model, start) if segments is None else
                     sinusoids(positions_in_segments(segments), self.d_model))
        return x + ops.cast(positions, x.dtype)

    def _logits(self, x):
        return self.target_embedding.logits(self.decoder_norm(x) if self.norm == 'pre' else x)  # [B, T, D] -> [B, T, V]

    # --- Config ---

    def get_config(self):
        names = ('source_vocabulary_size', 'target_vocabulary_size', 'num_layers', 'd_model', 'd_ff', 'heads',
                 'dropout', 'norm', 'share_embeddings')
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
