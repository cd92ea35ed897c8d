"""E5: with the same weights our Transformer gives what PyTorch's and keras-hub's give.

Theirs also have biases in attention, which the paper does not have: those are 0 here. All else is random.
"""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
import torch

from benchmarks import program_torch
from models.transformer import SIZES, Transformer
from tests.models.examples import source_of

BOTH_NORMS = pytest.mark.parametrize('norm', ['pre', 'post'])
D, F, HEADS, LAYERS, WORDS = 16, 32, 4, 2, 13
EPSILON = 1e-6  # of LayerNorm; PyTorch's and keras-hub's default is 1e-5
SOURCE = np.array([[5, 6, 7, 0, 0], [9, 8, 3, 2, 4], [2, 0, 0, 0, 0]], 'int32')
TARGET = np.array([[1, 4, 3, 0], [1, 2, 6, 7], [1, 0, 0, 0]], 'int32')
REAL = TARGET != 0  # [B, T]
ATTENTION = {'encoder': ['self_attention'], 'decoder': ['self_attention', 'cross_attention']}
PROJECTIONS = 'query', 'key', 'value', 'output_projection'
TO_OURS = {'attention_layer': 'attention', 'feedforward_layer': 'feed_forward', 'layer_norm': 'norm',
           'feedforward_intermediate_dense': 'feed_forward_in', 'feedforward_output_dense': 'feed_forward_out',
           'attention_output': 'output_projection'}  # keras-hub's names


def ours(norm):
    """The model, every weight random: zeros and ones of the initialisation could hide a missing bias or scale."""
    keras.utils.set_random_seed(2)  # with these weights another epsilon, too, makes a difference above 1e-5
    model = Transformer(WORDS, WORDS, LAYERS, D, F, HEADS, dropout=0., norm=norm, share_embeddings=True)
    model.build({'source': (None, None), 'source_mask': (None, None), 'target': (None, None)})
    random = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign_add(0.2 * random.standard_normal(weight.shape))
    return model


def by_path(model, values):
    return {weight.path.split('/', 1)[1]: np.array(value) for weight, value in zip(model.weights, values, strict=True)}


def positions(length):
    """Section 3.5 in float64, [T, D] float32."""
    angles = np.arange(length)[:, None] / 10000**(np.arange(D) // 2 * 2 / D)
    return np.where(np.arange(D) % 2, np.cos(angles), np.sin(angles)).astype('float32')


# --- PyTorch ---

def torch_stacks(norm):
    """torch.nn.Transformer; its own post-norm stacks would end in one LayerNorm more than the paper's."""
    nn = torch.nn
    sizes = {'d_model': D, 'nhead': HEADS, 'dim_feedforward': F, 'dropout': 0., 'layer_norm_eps': EPSILON,
             'norm_first': norm == 'pre', 'batch_first': True}
    first, last = (nn.LayerNorm(D, EPSILON) if norm == 'pre' else None for _ in range(2))
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(**sizes), LAYERS, first, enable_nested_tensor=False)
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**sizes), LAYERS, last)
    return nn.Transformer(D, HEADS, batch_first=True, custom_encoder=encoder, custom_decoder=decoder)


def to_torch(values):
    """Ours, weights or their gradients, under PyTorch's names: kernels are transposed; q, k and v are one."""
    state = {}
    for stack, attentions in ATTENTION.items():
        for i in range(LAYERS):
            here, there = f'{stack}_{i}', f'{stack}.layers.{i}'
            for attention, name in zip(attentions, ('self_attn', 'multihead_attn')):
                *qkv, out = (values[f'{here}/{attention}/{name}/kernel'].T for name in PROJECTIONS)
                state |= {f'{there}.{name}.in_proj_weight': np.concatenate(qkv), f'{there}.{name}.out_proj.weight': out}
            for dense, name in (('feed_forward_in', 'linear1'), ('feed_forward_out', 'linear2')):
                state |= {f'{there}.{name}.weight': values[f'{here}/{dense}/kernel'].T,
                          f'{there}.{name}.bias': values[f'{here}/{dense}/bias']}
            for n, sublayer in enumerate([*attentions, 'feed_forward'], 1):
                state |= {f'{there}.norm{n}.weight': values[f'{here}/{sublayer}_norm/gamma'],
                          f'{there}.norm{n}.bias': values[f'{here}/{sublayer}_norm/beta']}
        if f'{stack}_norm/gamma' in values:
            state |= {f'{stack}.norm.weight': values[f'{stack}_norm/gamma'],
                      f'{stack}.norm.bias': values[f'{stack}_norm/beta']}
    return {name: torch.tensor(value) for name, value in state.items()}


def load(stacks, state):
    left = set(stacks.state_dict()) - set(state)
    assert all(name.endswith(('in_proj_bias', 'out_proj.bias')) for name in left)
    stacks.load_state_dict(state, strict=False)
    for name in left:
        torch.nn.init.zeros_(stacks.get_parameter(name))


def torch_logits(stacks, table):
    """Around the stacks, what torch.nn.Transformer leaves out: one table, scaled, positions, and the table again."""
    def embed(ids):
        x = torch.nn.functional.embedding(torch.tensor(ids), table) * D**0.5  # [B, T, D]
        return x + torch.tensor(positions(ids.shape[1]))

    padding, future = torch.tensor(SOURCE == 0), torch.ones(2 * TARGET.shape[1:]).triu(1).bool()
    x = stacks(embed(SOURCE), embed(TARGET), tgt_mask=future, tgt_key_padding_mask=torch.tensor(~REAL),
               src_key_padding_mask=padding, memory_key_padding_mask=padding)
    return x @ table.T


def test_the_benchmark_has_the_sizes_of_the_models():
    assert program_torch.SIZES == {name: tuple(size.values()) for name, size in SIZES.items()}


@BOTH_NORMS
def test_as_torch_forwards_and_backwards(norm, measured):
    model, stacks = ours(norm), torch_stacks(norm)
    weights = by_path(model, model.weights)
    load(stacks, to_torch(weights))
    table = torch.nn.Parameter(torch.tensor(weights['shared_embedding/table']))
    # A scalar whose gradient by the logits is random, and 0 where there is no word.
    direction = np.random.default_rng(1).standard_normal((*TARGET.shape, WORDS)).astype('float32') * REAL[..., None]
    with tf.GradientTape() as tape:
        logits = model({**source_of(SOURCE), 'target': TARGET})
        loss = tf.reduce_sum(logits * direction)
    gradients = tape.gradient(loss, [weight.value for weight in model.weights])
    gradients = by_path(model, map(tf.convert_to_tensor, gradients))
    theirs = torch_logits(stacks, table)
    (theirs * torch.tensor(direction)).sum().backward()

    difference = np.abs(logits.numpy() - theirs.detach().numpy())[REAL].max()
    measured('E5', f'torch.nn.Transformer, {norm}-norm, logits', 'cpu', difference / np.abs(logits).max())
    assert difference < 1e-5 and np.abs(logits).max() > 1
    for name, gradient in to_torch(gradients).items():
        assert gradient.abs().max() > 1e-3, name
        np.testing.assert_allclose(stacks.get_parameter(name).grad, gradient, atol=1e-4, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(table.grad, gradients['shared_embedding/table'], atol=1e-4, rtol=1e-4)


# --- keras-hub ---

def hub_stacks(norm):
    """(encoder layers, decoder layers), built, and under the names of ours."""
    sizes = {'intermediate_dim': F, 'num_heads': HEADS, 'layer_norm_epsilon': EPSILON, 'normalize_first': norm == 'pre'}
    layers = keras_hub.layers
    encoder, decoder = ([layer(**sizes, name=f'{stack}_{i}') for i in range(LAYERS)] for stack, layer in (
        ('encoder', layers.TransformerEncoder), ('decoder', layers.TransformerDecoder)))
    for layer in encoder:
        layer.build((None, None, D))
    for layer in decoder:
        layer.build((None, None, D), (None, None, D))
    return encoder, decoder


def load_hub(layer, weights):
    """Theirs, by the names of ours: a kernel of attention has its heads on an axis of their own."""
    for weight in layer.weights:
        path = weight.path
        for theirs, name in TO_OURS.items():
            path = path.replace(theirs, name)
        if 'attention/' in path and path.endswith('bias'):
            np.testing.assert_array_equal(weight, np.zeros(weight.shape))
        else:
            weight.assign(weights[path].reshape(weight.shape))


@BOTH_NORMS
def test_as_keras_hub(norm, measured):
    model = ours(norm)
    weights = by_path(model, model.weights)
    encoder, decoder = hub_stacks(norm)
    embedding = keras.layers.ReversibleEmbedding(WORDS, D)
    embedding.build()
    embedding.set_weights([weights['shared_embedding/table']])
    for layer in (*encoder, *decoder):
        load_hub(layer, weights)

    def embed(ids):
        x = embedding(ids) * D**0.5  # [B, T, D]
        return x + keras_hub.layers.SinePositionEncoding()(x)

    x, real = embed(SOURCE), SOURCE != 0
    for layer in encoder:
        x = layer(x, padding_mask=real)
    memory = model.encoder_norm(x) if norm == 'pre' else x  # keras-hub has no stacks, and nothing at their ends
    np.testing.assert_allclose(model.encode(source_of(SOURCE)), memory, atol=1e-5)
    x = embed(TARGET)
    for layer in decoder:
        x = layer(x, memory, decoder_padding_mask=REAL, encoder_padding_mask=real)
    theirs = embedding(model.decoder_norm(x) if norm == 'pre' else x, reverse=True)
    logits = model({**source_of(SOURCE), 'target': TARGET}).numpy()
    difference = np.abs(logits - theirs)[REAL].max()
    measured('E5', f'keras-hub encoder and decoder, {norm}-norm, logits', 'cpu', difference / np.abs(logits).max())
    assert difference < 1e-5 and np.abs(logits).max() > 1
