"""E5: with the same weights our Transformer gives what PyTorch's gives, forwards and backwards. keras-hub's:
test_equality_others.py. Skipped where PyTorch is not installed: README.md, Start.

Theirs also has biases in attention, which the paper does not have: those are 0 here. All else is random.
"""

import numpy as np
import pytest
import tensorflow as tf

from models.transformer import SIZES
from tests.models.examples import source_of
from tests.models.random_transformer import (BOTH_NORMS, EPSILON, HEADS, LAYERS, REAL, SOURCE, TARGET, WORDS, D, F,
                                             by_path, ours)

torch = pytest.importorskip('torch', reason='PyTorch is not installed')

ATTENTION = {'encoder': ['self_attention'], 'decoder': ['self_attention', 'cross_attention']}
PROJECTIONS = 'query', 'key', 'value', 'output_projection'


def positions(length):
    """Section 3.5 in float64, [T, D] float32."""
    angles = np.arange(length)[:, None] / 10000**(np.arange(D) // 2 * 2 / D)
    return np.where(np.arange(D) % 2, np.cos(angles), np.sin(angles)).astype('float32')


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
    from benchmarks import program_torch  # imports torch
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
