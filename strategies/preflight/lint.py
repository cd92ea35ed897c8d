"""Legal but slow on a TPU: advice from the compiled program, one line for each rule and layer, worst first."""

import collections
import dataclasses
import math
import re

from strategies.preflight import hlo

# Padding is worth a line where most of the work or of the bytes is padding ...
MOSTLY = 0.5
# ... and nothing is worth one that cannot change the step by a hundredth.
MATTERS = 0.01
# A row that is gathered or scattered is a transfer of its own: at least one row of a tile, 128 words of 4 bytes.
LEAST_ROW_BYTES = 512
HOST_MEMORY = 5         # its number among the compiler's memory spaces
OUTSIDE = 'outside of layers'
# Components of an op_name that are not layers though they look like one: control flow, and operations in lower case.
_NO_LAYER = re.compile(r'gradient_tape|gradients|while|cond|body|call(\.\d+)?|jit\(.*|[A-Z].*|.*_grad|'
                       r'(convolution|add|sub|mul|truediv|split|concat|strided_slice|range|zeros|ones)(_\d+)?')


@dataclasses.dataclass(frozen=True)
class Advice:
    """share: of the step's least time that it costs, estimated; for float32, of the FLOPs that it concerns.

    A transfer to the host has 1: the chip waits for it, and how long is not known here.
    """
    rule: str
    layer: str
    message: str
    share: float

    def __str__(self):
        return f'{self.layer}: {self.message}'


def lint(text, chip, layers=(), launched=0):
    """Returns [Advice] for a compiled, scheduled HLO module's text, worst first.

    Args:
        launched: see hlo.Module.
        chip: a topologies.Chip, for the size of its matrix units and its speeds.
        layers: names of the model's layers. Without them they are guessed from the names of operations.
    """
    program = _Program(list(hlo.Module(text, launched).executions()), chip, layers)
    found = [*_mxu_padding(program), *_memory_padding(program), *_float32(program), *_rows(program), *_host(program)]
    return sorted((advice for advice in found if advice.share > MATTERS), key=lambda advice: -advice.share)


def batch_advice(num_examples, batch_size, split='test'):
    """Returns [Advice] where the last batch of a split, padded to `batch_size`, is mostly padding."""
    last = num_examples % batch_size
    batches, padding = -(-num_examples // batch_size), batch_size - last
    if not last or padding <= MOSTLY * batch_size or padding <= MATTERS * batches * batch_size:
        return []
    return [Advice('last batch', split, f'{padding} of the {batch_size} rows of its last batch are padding '
                   f'({num_examples} examples, {batches} batches): {padding / (batches * batch_size):.0%} of its work',
                   padding / (batches * batch_size))]


class _Program:
    """Executions, by layer, and the least time of a step."""

    def __init__(self, runs, chip, layers):
        self.runs, self.chip, self._layers = runs, chip, {part for path in layers for part in path.split('/')}
        self.products = [(run, _padded(run.instruction, chip.mxu_size)) for run in runs if run.instruction.flops]
        self.flops = sum(run.times * run.instruction.flops for run, _ in self.products)
        work = sum(run.times * product.padded for run, product in self.products)
        moved = sum(run.times * run.instruction.hbm_bytes for run in runs if not run.fused)
        self.seconds = max(work / chip.peak_flops, moved / chip.hbm_bandwidth, 1e-12)

    def by_layer(self, runs):
        """(run, ...) tuples -> [(layer, those of this layer)]"""
        grouped = collections.defaultdict(list)
        for each in runs:
            grouped[self._layer(each[0].instruction)].append(each)
        return grouped.items()

    def _layer(self, instruction):
        """Copies have no name, and gradients some without a layer; then a neighbour's is taken."""
        operands = instruction.operands
        near = [instruction, *operands, *(o for operand in operands for o in operand.operands),
                *instruction.computation.users[instruction.name]]
        names = (layer_of(each.op_name, self._layers) for each in near)
        return next((name for name in names if name != OUTSIDE), OUTSIDE)


def layer_of(op_name, layers=()):
    """'gradient_tape/mlp_1/hidden_2_1/MatMul/MatMul_1' -> 'mlp/hidden_2'.

    Keras makes a layer's name unique within a graph by a number, which is taken off again: with the model's own layer
    names surely, else where the outermost name has one too.
    """
    parts = op_name.split('/gradients/')[-1].split('/')
    if layers:
        named = [next((name for name in (part, _unnumbered(part)) if name in layers), '') for part in parts]
    else:
        named = [part for part in parts[:-1] if not _NO_LAYER.fullmatch(part)]
        if named and re.search(r'_\d+$', named[0]):
            named = [_unnumbered(part) for part in named]
    return '/'.join(name for name in named if name) or OUTSIDE


def _unnumbered(name):
    return re.sub(r'_\d+$', '', name)


@dataclasses.dataclass(frozen=True)
class _Product:
    """Matrix products of rows x contracted with contracted x columns, as many as count, in the unit's blocks."""
    count: int
    rows: int
    contracted: int
    columns: int
    blocks: tuple       # of the three

    @property
    def padded(self):
        """FLOPs that the unit does for them."""
        sizes = (self.rows, self.contracted, self.columns)
        return 2 * self.count * math.prod(-(-size // block) * block for size, block in zip(sizes, self.blocks))

    def __str__(self):
        sizes = ((self.rows, 'rows'), (self.contracted, 'contracted'), (self.columns, 'columns'))
        short = [f'{size} {what} in blocks of {block}' for (size, what), block in zip(sizes, self.blocks)
                 if -size % block > size * MATTERS]
        return f'{self.rows}x{self.contracted} times {self.contracted}x{self.columns}: {", ".join(short)}'


def _padded(instruction, mxu_size):
    """The _Product of a dot or a convolution, in the way that pads least; the compiler may swap rows and columns."""
    count, *sizes = _sizes(instruction)
    sublanes = 32 // instruction.operands[0].shapes[0].bits * 8     # a tile is 8 rows of 4 bytes, 16 of 2
    blocks = (max(8, sublanes), mxu_size, mxu_size)
    ways = [_Product(count, *sizes, blocks), _Product(count, *sizes[::-1], blocks)]
    if instruction.opcode == 'convolution' and hlo.groups(instruction) > 1:     # all groups at once, zeros between them
        rows, contracted, columns = sizes
        ways.append(_Product(1, rows, contracted * count, columns * count, blocks))
    return min(ways, key=lambda product: product.padded)


def _sizes(instruction):
    """(count, rows, contracted, columns). A window counts as contracted: no compiler can do better than that."""
    if instruction.opcode == 'dot':
        left = instruction.operands[0].shapes[0].dims
        contracted, batch = (
            math.prod(left[int(i)] for i in instruction.attribute(key).split(',') if i)
            for key in ('lhs_contracting_dims', 'lhs_batch_dims'))
        rows, columns = (math.prod(o.shapes[0].dims) // (contracted * batch) for o in instruction.operands)
        return batch, rows, contracted, columns
    along, sizes = hlo.windows(instruction)
    count = hlo.groups(instruction)
    rows, contracted, columns = sizes['b'], sizes['i'], sizes['o'] // count
    for window in along:
        if window.lhs_dilate == window.kernel > 1:      # how the compiler writes the batch of a batched product
            count *= window.out
        elif window.size == 1 and window.out == window.meetings:    # each output has a kernel element of its own
            columns *= window.out
        else:
            rows *= window.out
            contracted *= max(1, round(window.meetings / window.out))
    return count, rows, contracted, columns


def _mxu_padding(program):
    for layer, products in program.by_layer(program.products):
        padded = sum(run.times * product.padded for run, product in products)
        wasted = padded - sum(run.times * run.instruction.flops for run, _ in products)
        if wasted > MOSTLY * padded:
            _, worst = max(products, key=lambda each: each[0].times * (each[1].padded - each[0].instruction.flops))
            yield Advice('mxu padding', layer, f'{wasted / padded:.0%} of its work on the matrix units is padding, '
                         f'most in {worst}', wasted / program.chip.peak_flops / program.seconds)


def _memory_padding(program):
    moved = [(run, *_hbm_arrays(run)) for run in program.runs if not run.fused]
    for layer, arrays in program.by_layer([each for each in moved if each[1]]):
        total = sum(each[1] for each in arrays)
        wasted = sum(each[2] for each in arrays)
        if wasted > MOSTLY * total:
            worst = max(arrays, key=lambda each: each[2])
            yield Advice('memory padding', layer, f'{wasted / total:.0%} of the bytes that it moves are padding, most '
                         f'in {worst[3]}', wasted / program.chip.hbm_bandwidth / program.seconds)


def _hbm_arrays(run):
    """(bytes that it moves, those of padding, the array that is padded most)"""
    instruction = run.instruction
    moved = run.times * instruction.hbm_bytes
    arrays = [s for each in (instruction, *instruction.operands) for s in each.shapes if s.space == 0 and s.dims]
    if not moved or not arrays:
        return 0, 0, ''
    padding = sum(s.padded_bytes - s.bytes for s in arrays) / sum(s.padded_bytes for s in arrays)
    worst = max(arrays, key=lambda s: s.padded_bytes - s.bytes)
    return moved, moved * padding, f'{worst}: {worst.bytes} bytes in {worst.padded_bytes}'


def _float32(program):
    wide = [each for each in program.products if any(o.shapes[0].dtype == 'f32' for o in each[0].instruction.operands)]
    layers = program.by_layer(wide)
    if wide and len(layers) == len(program.by_layer(program.products)):
        # The gradients of weights may be products of bfloat16 all the same: the compiler rounds once what it can.
        share = sum(run.times * run.instruction.flops for run, _ in wide) / program.flops
        yield Advice('float32', 'the model', f'{share:.0%} of the FLOPs multiply float32; --precision=bfloat16 halves '
                     'the activations', share)
        return
    for layer, products in layers:
        share = sum(run.times * run.instruction.flops for run, _ in products) / program.flops
        yield Advice('float32', layer, f'multiplies float32 in a program of bfloat16: {share:.0%} of the FLOPs', share)


def _rows(program):
    for opcode, verb in (('gather', 'gathers'), ('scatter', 'scatters')):
        runs = [(run, run.times * _moved_rows(run.instruction)) for run in program.runs
                if run.instruction.opcode == opcode]
        for layer, each in program.by_layer(runs):
            rows = sum(count for _, count in each)
            seconds = sum(count * _row_bytes(run.instruction) for run, count in each) / program.chip.hbm_bandwidth
            loop = ' inside a loop' if any(run.in_loop for run, _ in each) else ''
            yield Advice(opcode, layer, f'{verb} {rows} rows per step{loop}, one transfer each',
                         seconds / program.seconds)


def _moved_rows(instruction):
    return math.prod(_moved_array(instruction).dims) // max(1, _row_size(instruction))


def _row_bytes(instruction):
    return max(LEAST_ROW_BYTES, _row_size(instruction) * _moved_array(instruction).bits // 8)


def _moved_array(instruction):
    return (instruction if instruction.opcode == 'gather' else instruction.operands[-1]).shapes[0]


def _row_size(instruction):
    """Elements of one row."""
    if instruction.opcode == 'gather':
        return math.prod(map(int, instruction.attribute('slice_sizes').split(',')))
    dims = _moved_array(instruction).dims
    return math.prod(dims[int(i)] for i in instruction.attribute('update_window_dims').split(',') if i)


def _host(program):
    runs = [(run, run.times * _host_bytes(run.instruction)) for run in program.runs if not run.fused]
    for layer, each in program.by_layer([each for each in runs if each[1]]):
        size, count = sum(moved for _, moved in each), sum(run.times for run, _ in each)
        yield Advice('host transfer', layer, f'exchanges {size} bytes with the host in {count} transfers per step, and '
                     'the chip waits', 1.)


def _host_bytes(instruction):
    opcode, arrays = instruction.opcode, instruction.shapes
    if opcode in ('send', 'recv') and 'is_host_transfer=true' not in instruction.attributes:
        return 0
    if opcode in ('send', 'outfeed'):
        arrays = instruction.operands[0].shapes
    elif opcode == 'copy-start':
        arrays = arrays[:1] if HOST_MEMORY in (arrays[0].space, arrays[1].space) else ()
    elif opcode not in ('recv', 'infeed'):
        return 0
    return sum(s.padded_bytes for s in arrays)
