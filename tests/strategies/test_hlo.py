"""Costs of programs of the real TPU compiler, against counts by hand and against the compiler's own."""

import pytest

from strategies.preflight import arrays, hlo
from tests import tpu_programs

MATMUL = 2 * 128 ** 3


# A loop of products of 2x2 matrices, which also copies a row of a table at a time.
LOOP = """HloModule by_hand, is_scheduled=true

%row (table: f32[64,128], i: s32[]) -> f32[1,128] {
  %table = f32[64,128]{1,0:T(8,128)} parameter(0)
  %same = f32[64,128]{1,0:T(8,128)} bitcast(%table)
  %i.1 = s32[]{:T(128)S(6)} parameter(1)
  %zero = s32[]{:T(128)S(6)} constant(0)
  ROOT %sliced = f32[1,128]{1,0:T(1,128)} dynamic-slice(%same, %i.1, %zero), dynamic_slice_sizes={1,128}
}

%body (carried: (s32[], f32[64,128], f32[2,2])) -> (s32[], f32[64,128], f32[2,2]) {
  %carried = (s32[]{:T(128)S(6)}, f32[64,128]{1,0:T(8,128)}, f32[2,2]{1,0:T(8,128)S(1)}) parameter(0)
  %i.2 = s32[]{:T(128)S(6)} get-tuple-element(%carried), index=0
  %table.1 = f32[64,128]{1,0:T(8,128)} get-tuple-element(%carried), index=1
  %x = f32[2,2]{1,0:T(8,128)S(1)} get-tuple-element(%carried), index=2
  %step = s32[]{:T(128)S(6)} constant(STEP)
  %next = s32[]{:T(128)S(6)} add(%i.2, %step)
  %copied = f32[1,128]{1,0:T(1,128)S(1)} fusion(%table.1, %i.2), kind=kLoop, calls=%row
  %product = f32[2,2]{1,0:T(8,128)S(1)} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %after = (s32[]{:T(128)S(6)}, f32[64,128]{1,0:T(8,128)}, f32[2,2]{1,0:T(8,128)S(1)}) tuple(%next, %table.1, \
/*index=2*/%product)
}

%condition (carried.1: (s32[], f32[64,128], f32[2,2])) -> pred[] {
  %carried.1 = (s32[]{:T(128)S(6)}, f32[64,128]{1,0:T(8,128)}, f32[2,2]{1,0:T(8,128)S(1)}) parameter(0)
  %i = s32[]{:T(128)S(6)} get-tuple-element(%carried.1), index=0
  %three = s32[]{:T(128)S(6)} constant(3)
  %ten = s32[]{:T(128)S(6)} constant(10)
  %below_ten = pred[]{:T(512)S(6)} compare(%i, %ten), direction=LT
  %below_three = pred[]{:T(512)S(6)} compare(%i, %three), direction=LT
  ROOT %more = pred[]{:T(512)S(6)} CONDITION
}

ENTRY %main (table.2: f32[64,128], x.1: f32[2,2]) -> f32[2,2] {
  %start = s32[]{:T(128)S(6)} constant(START)
  %table.2 = f32[64,128]{1,0:T(8,128)} parameter(0)
  %x.1 = f32[2,2]{1,0:T(8,128)S(1)} parameter(1)
  %first = (s32[]{:T(128)S(6)}, f32[64,128]{1,0:T(8,128)}, f32[2,2]{1,0:T(8,128)S(1)}) tuple(%start, %table.2, %x.1)
  %loop = (s32[]{:T(128)S(6)}, f32[64,128]{1,0:T(8,128)}, f32[2,2]{1,0:T(8,128)S(1)}) while(%first), \
condition=%condition, body=%body
  ROOT %last = f32[2,2]{1,0:T(8,128)S(1)} get-tuple-element(%loop), index=2
}
""".replace('\\\n', '')


def costs(name):
    return hlo.costs(tpu_programs.compiled().programs[name]['text'])


def compilers_flops(name):
    return tpu_programs.compiled().programs[name]['flops']


def test_matmul_by_hand():
    cost = costs('matmul')
    assert cost.flops == 2 * 256 * 512 * 384
    assert cost.bytes == 2 * (256 * 512 + 512 * 384 + 256 * 384)
    assert (cost.collectives, cost.all_reduces, cost.all_reduce_bytes, cost.unknown_loops) == ({}, 0, 0, ())


@pytest.mark.parametrize('name, elementwise', [('matmul', 0), ('attention', 0), ('depthwise', 0),
                                               ('convolution', 0.02), ('backward', 0.02)])
def test_flops_are_the_compilers_where_nothing_loops(name, elementwise):
    assert 0 <= compilers_flops(name) - costs(name).flops <= elementwise * costs(name).flops


def test_attention_counts_no_product_between_examples():
    assert costs('attention').flops == 2 * 8 * 4 * 64 * 48 * 32


@pytest.mark.parametrize('name, products', [('scan', 7), ('nested', 3 * 5), ('bound_by_a_counter', 9 + 9), ('down', 4),
                                            ('at_most', 6)])
def test_loops_count_as_often_as_they_run(name, products):
    cost = costs(name)
    assert cost.flops == products * MATMUL
    assert cost.unknown_loops == ()
    assert compilers_flops(name) < 3 * MATMUL      # the reason for counting here


def test_a_loop_of_unknown_length_counts_once_and_is_named():
    cost = costs('unknown')
    assert cost.flops == MATMUL
    assert cost.unknown_loops == ('jit(unknown)/while',)


def test_one_step_of_a_launch_counts_with_its_share_of_what_is_around():
    text = LOOP.replace('START', '0').replace('STEP', '0').replace('CONDITION', 'compare(%i, %ten), direction=LT')
    text = text.replace('  ROOT %last', '  %copied.1 = f32[64,128]{1,0:T(8,128)} copy(%table.2)\n  ROOT %last')
    once, step = hlo.costs(text), hlo.costs(text, launched=4)
    row, copy = 128 * 4, 2 * 64 * 128 * 4
    assert (once.bytes, once.unknown_loops) == (row + copy, ('loop',))
    assert (step.bytes, step.flops, step.unknown_loops) == (row + copy / 4, once.flops, ())
    assert not any(run.in_loop for run in hlo.Module(text, launched=4).executions())


def test_a_stated_trip_count_comes_first():
    text = tpu_programs.compiled().programs['unknown']['text']
    stated = text.replace(', body=', ', backend_config={"known_trip_count":{"n":"12"}}, body=')
    assert stated != text
    assert hlo.costs(stated).flops == 12 * MATMUL


@pytest.mark.parametrize('start, step, condition, trips', [
    (0, 1, 'compare(%i, %ten), direction=LT', 10), (0, 1, 'compare(%i, %ten), direction=LE', 11),
    (1, 4, 'compare(%i, %ten), direction=LT', 3), (0, 5, 'compare(%i, %ten), direction=NE', 2),
    (0, 1, 'compare(%ten, %i), direction=GT', 10), (0, 1, 'compare(%ten, %i), direction=GE', 11),
    (20, -1, 'compare(%i, %ten), direction=GT', 10), (20, -3, 'compare(%i, %ten), direction=GE', 4),
    (11, 1, 'compare(%i, %ten), direction=LT', 0), (0, 1, 'and(%below_ten, %below_three)', 3),
    (0, 1, 'and(%below_three, %below_ten)', 3),
    (0, 3, 'compare(%i, %ten), direction=NE', None), (0, 0, 'compare(%i, %ten), direction=LT', None),
    (0, -1, 'compare(%i, %ten), direction=EQ', None), (0, 1, 'or(%below_ten, %below_three)', None),
])
def test_conditions_of_loops(start, step, condition, trips):
    text = LOOP.replace('START', str(start)).replace('STEP', str(step)).replace('CONDITION', condition)
    cost = hlo.costs(text)
    assert cost.unknown_loops == (('loop',) if trips is None else ())
    times, row = 1 if trips is None else trips, 128 * 4
    assert (cost.flops, cost.bytes) == (times * 2 * 2 * 2 * 2, times * row)


def test_the_largest_branch_counts():
    assert costs('branches').flops == 2 * MATMUL


def test_a_slice_is_read_not_the_whole_array():
    slices, weights, total = 64 * 1024 * 256 * 2, 64 * 256 * 128 * 2, 1024 * 128 * 2
    assert slices + total <= costs('read_slices').bytes <= 1.02 * (slices + weights + total)


def test_a_slice_is_written_not_the_whole_array():
    written, inputs = 64 * 1024 * 1024 * 2, 2 * 1024 * 1024 * 2
    assert written + inputs <= costs('write_slices').bytes <= 1.02 * (written + inputs)


def test_gathered_rows_are_read_not_the_table():
    rows = tpu_programs.ROWS * 128 * 4
    assert 2 * rows <= costs('gather').bytes <= 2.1 * rows


def test_scattered_rows_are_written_not_the_table():
    copy, rows = 2 * tpu_programs.TABLE * 128 * 4, 100 * tpu_programs.ROWS * 128 * 4
    assert copy + 2 * rows <= costs('updates').bytes <= copy + 4 * rows


def test_padding_moves_too():
    assert costs('padded_memory').bytes == 2 * 20 ** 3 * 24 * 128 * 2


def test_what_stays_in_vmem_costs_nothing():
    array = 128 * 128 * 2
    # In and out; not seven times both operands and the result of a product.
    assert 3 * array <= costs('scan').bytes < 7 * 3 * array / 2


def test_collectives():
    shard = 1024 * 1024 * 4 // 8
    assert costs('all_reduce').collectives == {'all-reduce': (1, shard)}
    assert costs('all_gather').collectives == {'all-gather': (1, 8 * shard)}
    assert (costs('all_reduce_in_a_loop').all_reduces, costs('all_reduce_in_a_loop').all_reduce_bytes) == (5, 5 * shard)


@pytest.mark.parametrize('text, expected', [
    ('f32[8,128]{1,0:T(8,128)}', 8 * 128 * 4),
    ('bf16[16,50]{1,0:T(8,128)(2,1)S(1)}', 16 * 128 * 2),
    ('f32[128,10]{0,1:T(8,128)}', 16 * 128 * 4),           # column-major: the 10 are rows of a tile
    ('f32[16,28,28,1]{2,3,1,0:T(1,128)}', 16 * 28 * 128 * 4),
    ('f32[300]{0:T(256)}', 512 * 4),
    ('s32[]{:T(128)}', 128 * 4),
    ('pred[3,3]{1,0:T(8,128)(4,1)}', 8 * 128),
    ('f32[3,5]{1,0}', 60), ('s4[7]{0}', 4), ('token[]', 0),
])
def test_padding_of_tiles(text, expected):
    assert [a.padded_bytes for a in arrays.shapes(text)] == [expected]


def test_a_tuples_arrays_and_their_memories():
    found = arrays.shapes('((bf16[2,3]{1,0:T(8,128)(2,1)}), f32[4]{0:T(128)S(1)}, /*index=2*/u32[]{:S(2)})')
    assert [(str(a), a.space) for a in found] == [('bf16[2,3]', 0), ('f32[4]', 1), ('u32[]', 2)]
