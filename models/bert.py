"""BERT, arXiv:1810.04805: a Transformer's encoder that is trained to guess hidden tokens, with a head for each task.

Letters in the shapes: B examples, T tokens, D = d_model, V words, P predicted positions.
"""

import keras
from keras import ops

from errors import UserError, lookup
from models.dropout import Dropout
from models.encoder import HidePadding
from models.transformer_layers import ACTIVATIONS, EncoderLayer, TokenEmbedding, layer_norm

# google-research/bert's released ones; minilm: arXiv:2002.10957.
SIZES = {
    'tiny': {'num_layers': 2, 'd_model': 128, 'd_ff': 512, 'heads': 2},
    'mini': {'num_layers': 4, 'd_model': 256, 'd_ff': 1024, 'heads': 4},
    'small': {'num_layers': 4, 'd_model': 512, 'd_ff': 2048, 'heads': 8},
    'medium': {'num_layers': 8, 'd_model': 512, 'd_ff': 2048, 'heads': 8},
    'minilm': {'num_layers': 6, 'd_model': 384, 'd_ff': 1536, 'heads': 12},
    'base': {'num_layers': 12, 'd_model': 768, 'd_ff': 3072, 'heads': 12},
    'large': {'num_layers': 24, 'd_model': 1024, 'd_ff': 4096, 'heads': 16},
}
DEFAULTS = {'positions': 512, 'activation': 'gelu', 'norm_epsilon': 1e-12}
DEVIATION, SEGMENTS = 0.02, 2


def bert(vocabulary_size, length, outputs=None, predictions=None, spans=None, size=None, num_layers=None,
         d_model=None, d_ff=None, heads=None, positions=None, activation=None, norm_epsilon=None, dropout=0.1):
    """What a text, or two, are, as the size that the task gives says:

    | given       | inputs                    | outputs, float32                                     |
    |-------------|---------------------------|------------------------------------------------------|
    | outputs     | ids, mask                 | logits [B, outputs], of the pooled first token       |
    | predictions | ids, mask, positions      | logits [B, predictions, V] of the tokens there       |
    | spans       | ids, mask, segments       | logits [B, T, spans]: a span begins, or ends, there  |

    ids, segments: int32 [B, T]; mask: bool [B, T], True where a token is; positions: int32 [B, P]. Of a single text all
    segments are 0.

    An encoder of L layers of D and F has V * D + 514 * D + 2 * D + L * (4 * D**2 + 2 * D * F + F + 9 * D) parameters;
    the pooler D * (D + 1).

    | size   | L  | D    | F    | heads | parameters with the pooler and 30,522 words |
    |--------|----|------|------|-------|---------------------------------------------|
    | tiny   | 2  | 128  | 512  | 2     | 4,385,920                                   |
    | mini   | 4  | 256  | 1024 | 4     | 11,170,560                                  |
    | small  | 4  | 512  | 2048 | 8     | 28,763,648                                  |
    | medium | 8  | 512  | 2048 | 8     | 41,373,184                                  |
    | minilm | 6  | 384  | 1536 | 12    | 22,713,216                                  |
    | base   | 12 | 768  | 3072 | 12    | 109,482,240                                 |
    | large  | 24 | 1024 | 4096 | 16    | 335,141,888                                 |

    Args:
        length: T, at most `positions`.
        size: a row of the table; tiny, if it is None.
        num_layers, d_model, d_ff, heads: in place of those of the size.
        positions: rows of the table of positions; 512, if it is None.
        activation: 'gelu', as in Hugging Face's files and if it is None, or 'gelu_tanh', as in google-research's code.
        norm_epsilon: of LayerNorm; 1e-12, if it is None.
    """
    if sum(given is not None for given in (outputs, predictions, spans)) != 1:
        raise UserError('`task` must give a bert one of outputs, predictions and spans. Received: '
                        f'outputs={outputs}, predictions={predictions}, spans={spans}')
    own = {'num_layers': num_layers, 'd_model': d_model, 'd_ff': d_ff, 'heads': heads, 'positions': positions,
           'activation': activation, 'norm_epsilon': norm_epsilon}
    config = configuration(size, own) | {'dropout': dropout}
    if length > config['positions']:
        raise UserError(f'`max_length` must be at most {config["positions"]}, the positions of this bert. '
                        f'Received: max_length={length}')
    if config['d_model'] % config['heads']:
        raise UserError(f'`heads` must divide `d_model` ({config["d_model"]}). Received: heads={config["heads"]}')
    inputs = {name: keras.Input((length,), dtype=dtype, name=name)
              for name, dtype in (('ids', 'int32'), ('mask', 'bool'))}
    if spans:
        inputs['segments'] = keras.Input((length,), dtype='int32', name='segments')
    words = _table(vocabulary_size, config['d_model'], 'word_table')
    x = _encoded(inputs, words, config)                                              # [B, T, D]
    if outputs:
        logits = _classes(x, outputs, config)
    elif spans:
        logits = _dense(spans, 'logits', dtype='float32')(x)
    else:
        inputs['positions'] = keras.Input((predictions,), dtype='int32', name='positions')
        logits = _tokens(x, inputs['positions'], words, config)
    return keras.Model(inputs, logits, name='bert')


def configuration(size, own):
    """{name: value} of a size, None for tiny, with those of `own` that are not None."""
    chosen = {name: value for name, value in own.items() if value is not None}
    return DEFAULTS | lookup(SIZES, size or 'tiny', 'size') | chosen


def _encoded(inputs, words, config):
    """The last layer's outputs [B, T, D]: section 3, and section 3 of arXiv:1706.03762 with the norm after the sum."""
    ids, d_model = inputs['ids'], config['d_model']
    positions = _table(config['positions'], d_model, 'position_table')(Places(name='places')(ids))
    segments = _table(SEGMENTS, d_model, 'segment_table')(_segments(inputs))
    x = keras.layers.Add(name='embeddings')([words(ids), positions, segments])
    x = layer_norm('embeddings_norm', None, config['norm_epsilon'])(x)
    x = Dropout(config['dropout'], name='embeddings_dropout')(x)
    hidden = HidePadding(name='hide_padding')(inputs['mask'])                        # [B, 1, 1, T]
    for i in range(config['num_layers']):
        x = EncoderLayer(config['d_model'], config['d_ff'], config['heads'], config['dropout'], 'post',
                         config['activation'], True, config['norm_epsilon'], name=f'encoder_{i}')(x, hidden)
    return x


def _segments(inputs):
    return inputs['segments'] if 'segments' in inputs else Zeros(name='first_segment')(inputs['ids'])


def _classes(x, outputs, config):
    """[B, T, D] -> [B, outputs]: section 4.1, from the first token through the pooler."""
    x = FirstToken(name='first_token')(x)
    x = _dense(config['d_model'], 'head_pooler', activation='tanh')(x)
    return _dense(outputs, 'logits', dtype='float32')(Dropout(config['dropout'], name='head_dropout')(x))


def _tokens(x, positions, words, config):
    """[B, T, D], int32 [B, P] -> [B, P, V]: the words' own table scores them, after a layer of D and a norm."""
    x = AtPositions(name='at_positions')(x, positions)                               # [B, P, D]
    x = _dense(config['d_model'], 'head_transform', activation=ACTIVATIONS[config['activation']])(x)
    x = layer_norm('head_norm', None, config['norm_epsilon'])(x)
    return WordBias(dtype='float32', name='head_words')(words(x, reverse=True))


def _table(size, d_model, name):
    return TokenEmbedding(size, d_model, DEVIATION, False, name=name)


def _dense(units, name, **options):
    return keras.layers.Dense(units, kernel_initializer=keras.initializers.TruncatedNormal(stddev=DEVIATION), name=name,
                              **options)


@keras.saving.register_keras_serializable(package='congruent')
class Places(keras.layers.Layer):
    """ids [B, T] -> int32 [1, T]: 0, 1, 2, ..."""

    def call(self, ids):
        return ops.arange(ids.shape[1], dtype='int32')[None]


@keras.saving.register_keras_serializable(package='congruent')
class Zeros(keras.layers.Layer):
    """ids [B, T] -> int32 [1, 1]: of a single text, all tokens are in the first segment."""

    def call(self, ids):
        return ops.zeros((1, 1), dtype='int32')


@keras.saving.register_keras_serializable(package='congruent')
class FirstToken(keras.layers.Layer):
    """x [B, T, D] -> [B, D]."""

    def call(self, x):
        return x[:, 0]


@keras.saving.register_keras_serializable(package='congruent')
class AtPositions(keras.layers.Layer):
    """x [B, T, D], positions int32 [B, P] -> [B, P, D]."""

    lookup = None      # set by training/lookups.py, as of TokenEmbedding

    def call(self, x, positions):
        if self.lookup is not None:
            return self.lookup(x, positions)
        return ops.take_along_axis(x, positions[..., None], axis=1)


@keras.saving.register_keras_serializable(package='congruent')
class WordBias(keras.layers.Layer):
    """x [B, P, V] -> [B, P, V], a number added for each word."""

    def build(self, input_shape):
        self.bias = self.add_weight(name='bias', shape=input_shape[-1:], initializer='zeros')

    def call(self, x):
        return x + self.bias
