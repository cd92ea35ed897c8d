"""Each rule on a program of the real TPU compiler that has the fault, and on one that has not."""

import pytest

from strategies.preflight import hlo, lint, topologies
from tests import tpu_programs


def advice(name, kind='v5e', layers=()):
    return lint.lint(tpu_programs.compiled().programs[name]['text'], topologies.CHIPS[kind], layers)


def lines(name, rule, **more):
    return [(a.layer, a.message) for a in advice(name, **more) if a.rule == rule]


def test_a_program_without_faults_gets_no_advice():
    assert advice('matmul') == []


def test_products_that_pad_the_matrix_units():
    [(layer, message)] = lines('padded_products', 'mxu padding')
    assert layer == 'net/narrow'
    assert message.startswith('94% of its work') and message.endswith(': 8 contracted in blocks of 128')


def test_a_batch_of_small_products_pads_each():
    [(_, message)] = lines('attention', 'mxu padding')
    assert '32 contracted in blocks of 128' in message and '48x32 times 32x64' in message


def test_heads_are_columns_of_one_product():
    runs = hlo.Module(tpu_programs.compiled().programs['heads']['text']).executions()
    assert [lint._sizes(run.instruction) for run in runs if run.instruction.flops] == [(1, 384, 128, 64)]


@pytest.mark.parametrize('name, product', [('convolution', '32x144 times 144x50'),
                                           ('depthwise', '162x576 times 576x64')])
def test_a_window_and_groups_count_as_contracted(name, product):
    [(_, message)] = lines(name, 'mxu padding')
    assert product in message


def test_larger_matrix_units_pad_more():
    [(_, message)] = lines('padded_products', 'mxu padding', kind='v6e')
    assert message.startswith('97% of its work')


def test_arrays_that_pad_their_tiles():
    [(_, message)] = lines('padded_memory', 'memory padding')
    assert message.startswith('87% of the bytes') and 'bf16[20,20,20,20,20]: 6400000 bytes in 49152000' in message


def test_a_float32_model():
    assert lines('float32', 'float32') == [
        ('the model', '100% of the FLOPs multiply float32; --precision=bfloat16 halves the activations')]
    assert lines('matmul', 'float32') == []


def test_a_float32_layer_of_a_bfloat16_model():
    [(layer, message)] = lines('float32_head', 'float32')
    assert layer == 'net/head' and message.endswith('20% of the FLOPs')


def test_rows_gathered_in_a_loop():
    [(layer, message)] = lines('lookups', 'gather', layers={'net', 'embedding'})
    assert (layer, message) == ('net/embedding', 'gathers 25600 rows per step inside a loop, one transfer each')
    assert lines('read_slices', 'gather') == []


def test_rows_scattered_in_a_loop():
    [(_, message)] = lines('updates', 'scatter')
    assert message == 'scatters 25600 rows per step inside a loop, one transfer each'
    assert lines('write_slices', 'scatter') == []


def test_transfers_to_the_host():
    [(_, message)] = lines('callback', 'host transfer')
    assert message.startswith('exchanges 8196 bytes with the host in 2 transfers')
    assert lines('all_reduce', 'host transfer') == []


@pytest.mark.parametrize('name', ['attention', 'lookups', 'float32_head', 'depthwise', 'callback'])
def test_worst_first_and_one_line_for_a_rule_and_a_layer(name):
    found = advice(name)
    assert [a.share for a in found] == sorted((a.share for a in found), reverse=True)
    assert len({(a.rule, a.layer) for a in found}) == len(found) > 0
    assert all(a.share > lint.MATTERS for a in found)


@pytest.mark.parametrize('op_name, guessed, known', [
    ('mlp_1/hidden_1_1/MatMul', 'mlp/hidden_1', 'hidden_1'),
    ('gradient_tape/mlp_1/logits_1/MatMul/MatMul_1', 'mlp/logits', 'logits'),
    ('mlp/hidden_1/MatMul', 'mlp/hidden_1', 'hidden_1'),
    ('gradient_tape/cnn_1/conv_1/convolution/Conv2DBackpropFilter', 'cnn/conv', 'conv'),
    ('transformer_1/decoder_0_1/value_1/Tensordot/MatMul', 'transformer/decoder_0/value', 'decoder_0/value'),
    ('gradient_tape/lstm_1/lstm_1/while/gradients/lstm_1/lstm_1/while/lstm_cell_1/MatMul_1_grad/MatMul_1',
     'lstm/lstm/lstm_cell', 'lstm_cell'),
    ('while/mlp_1/hidden_1_1/BiasAdd/Cast', 'mlp/hidden_1', 'hidden_1'),
    ('gradient_tape/transformer_1/target_embedding_1/Reshape', 'transformer/target_embedding', 'target_embedding'),
    ('UnsortedSegmentSum', lint.OUTSIDE, lint.OUTSIDE), ('', lint.OUTSIDE, lint.OUTSIDE),
])
def test_layers_of_operations(op_name, guessed, known):
    layers = {'hidden_1', 'logits', 'conv', 'decoder_0', 'value', 'lstm_cell', 'target_embedding'}
    assert (lint.layer_of(op_name), lint.layer_of(op_name, layers)) == (guessed, known)


@pytest.mark.parametrize('examples, batch, share', [(10, 100, 0.9), (310, 100, 90 / 400)])
def test_a_last_batch_that_is_mostly_padding(examples, batch, share):
    [found] = lint.batch_advice(examples, batch, 'validation')
    assert found.share == pytest.approx(share)
    assert found.layer == 'validation' and f'{examples} examples' in found.message


@pytest.mark.parametrize('examples, batch', [(400, 100), (360, 100), (100010, 100)])
def test_a_last_batch_that_does_not_matter(examples, batch):
    assert lint.batch_advice(examples, batch) == []
