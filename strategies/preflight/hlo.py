"""What a compiled TPU program costs, read from its scheduled HLO text (openxla.org/xla/operation_semantics).

The compiler's own cost analysis counts a loop's body once, whatever its trip count, and counts buffers in the chip's
vector memory (VMEM) like those in HBM. Here loops count as often as they run, and only HBM counts.
"""

import collections
import dataclasses
import functools
import math
import re

from strategies.preflight.arrays import numbers, shapes
from strategies.preflight.loops import trip_count

COLLECTIVES = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute')
# They name or reserve a buffer, and move nothing.
_FREE = {'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all', 'opt-barrier', 'while', 'call',
         'conditional', 'partition-id', 'replica-id', 'add-dependency'}
_FREE_TARGETS = {'AllocateBuffer', 'ConcatBitcast', 'AssumeGatherIndicesInBound', 'X64SplitLow', 'X64SplitHigh'}
_RENAMES = {'bitcast', 'reshape'}       # inside a fusion, where nothing is stored in between
_SLICES = {'slice', 'dynamic-slice', 'gather'}
_UPDATES = {'dynamic-update-slice': 1, 'scatter': 2}     # and which operand the update is

_INSTRUCTION = re.compile(r'\s+(?:ROOT )?%(\S+) = (.*?) ([a-z][a-z\d-]*)\(')
_COMPUTATION = re.compile(r'(ENTRY )?%(\S+) \(.*\{$')
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_CALLS = ('calls', 'to_apply', 'condition', 'body', 'branch_computations', 'true_computation', 'false_computation')


@dataclasses.dataclass(frozen=True)
class Costs:
    """The costs of one execution, or of one step of a launch, on one device."""
    flops: int                  # of matrix products and convolutions, a multiply-add as 2
    bytes: int                  # to and from HBM, each operand once, with the padding of tiles: that moves too
    collectives: dict           # {kind: (executions, bytes)}, for the kinds of COLLECTIVES that occur
    unknown_loops: tuple        # op_name of loops whose trip count cannot be read; they are counted once

    @property
    def all_reduces(self):
        return self.collectives.get('all-reduce', (0, 0))[0]

    @property
    def all_reduce_bytes(self):
        """What one device puts in."""
        return self.collectives.get('all-reduce', (0, 0))[1]


def costs(text, launched=0):
    """Returns Costs of a compiled, scheduled HLO module's text. launched: see Module."""
    module = Module(text, launched)
    flops = moved = 0
    collectives = collections.defaultdict(lambda: (0, 0))
    for run in module.executions():
        flops += run.times * run.instruction.flops
        moved += 0 if run.fused else run.times * run.instruction.hbm_bytes
        kind = run.instruction.opcode.removesuffix('-start')
        if kind in COLLECTIVES:
            executions, size = collectives[kind]
            collectives[kind] = executions + run.times, size + run.times * _collective_bytes(run.instruction, kind)
    collectives = {kind: (round(executions), round(size)) for kind, (executions, size) in collectives.items()}
    return Costs(round(flops), round(moved), collectives, tuple(module.unknown_loops))


class Instruction:
    """One line. operands are Instructions of the same computation."""

    def __init__(self, computation, name, type_, opcode, rest):
        self.computation, self.name, self.type, self.opcode = computation, name, type_, opcode
        end = _closing(rest)
        self.arguments, self.attributes = rest[:end], rest[end + 1:]

    @functools.cached_property
    def operands(self):
        return [self.computation.instructions[name] for name in re.findall(r'%([^\s,]+)', self.arguments)]

    @property
    def shapes(self):
        return shapes(self.type)

    @property
    def op_name(self):
        found = _OP_NAME.search(self.attributes)
        return found[1] if found else ''

    @property
    def index(self):
        """The index of a get-tuple-element or a parameter."""
        return int(self.arguments) if self.opcode == 'parameter' else int(self.attribute('index'))

    def attribute(self, key, default=''):
        """The text after key=, without the braces or quotes around it."""
        found = re.search(rf'\b{key}=(?:\{{([^}}]*)\}}|"([^"]*)"|([^\s,]+))', self.attributes)
        return next(text for text in found.groups() if text is not None) if found else default

    @functools.cached_property
    def called(self):
        """{attribute: [Computation, ...]} of those it runs; a reduction's scalar function is none."""
        if self.opcode not in ('fusion', 'while', 'call', 'conditional', 'async-start'):
            return {}
        found = {key: re.findall(r'[^\s,%]+', self.attribute(key)) for key in _CALLS}
        module = self.computation.module
        return {key: [module.computations[name] for name in names] for key, names in found.items() if names}

    @functools.cached_property
    def hbm_bytes(self):
        """What it reads from and writes to HBM when scheduled; the instructions in a loop count for themselves."""
        return _hbm_bytes(self)

    @functools.cached_property
    def flops(self):
        if self.opcode == 'convolution':
            return _convolution_flops(self)
        if self.opcode == 'dot':
            left = self.operands[0].shapes[0].dims
            contracted = math.prod(left[i] for i in numbers(self.attribute('lhs_contracting_dims')))
            return 2 * math.prod(self.shapes[0].dims) * contracted
        return 0


def _closing(text):
    depth = 1
    for match in re.finditer(r'[()]', text):
        depth += 1 if match[0] == '(' else -1
        if not depth:
            return match.start()
    return len(text)


class Computation:
    def __init__(self, module, name):
        self.module, self.name, self.instructions, self.root = module, name, {}, None

    @functools.cached_property
    def parameters(self):
        return {i.index: i for i in self.instructions.values() if i.opcode == 'parameter'}

    @functools.cached_property
    def users(self):
        users = collections.defaultdict(list)
        for instruction in self.instructions.values():
            for operand in dict.fromkeys(instruction.operands):
                users[operand.name].append(instruction)
        return users


@dataclasses.dataclass(frozen=True)
class Execution:
    instruction: Instruction
    times: float        # whole, but for what is around the loop of a launch
    fused: bool         # inside a fusion: it computes, but what it reads and writes is the fusion's
    in_loop: bool


class Module:
    """The parsed text. Loops of unknown trip count are collected while executions() is walked.

    launched: 0; or how many steps a launch has, as a loop of the entry whose trip count the text does not say. Then
    executions() are those of one step: `times` of what is around the loop is a fraction.
    """

    def __init__(self, text, launched=0):
        self.computations, self.entry, self.unknown_loops, self._launched = {}, None, [], launched
        # Loops' bodies: what is carried into one is found at its while instruction.
        self.loops = {}
        computation = None
        for line in text.splitlines():
            if line.startswith((' ', '\t')):
                self._add(computation, line)
            elif header := _COMPUTATION.match(line):
                computation = self.computations[header[2]] = Computation(self, header[2])
                self.entry = computation if header[1] else self.entry
        for each in self.computations.values():
            for loop in each.instructions.values():
                if loop.opcode == 'while':
                    self.loops[loop.called['body'][0].name] = loop

    @staticmethod
    def _add(computation, line):
        found = _INSTRUCTION.match(line)
        if found and computation is not None:
            instruction = Instruction(computation, *found.groups(), line[found.end():])
            computation.instructions[instruction.name] = instruction
            if line.lstrip().startswith('ROOT'):
                computation.root = instruction

    def executions(self):
        """Yields an Execution for each instruction that runs, those inside fusions too."""
        yield from self._run(self.entry, 1 / self._launched if self._launched else 1, False, False)

    def _run(self, computation, times, fused, in_loop):
        for instruction in computation.instructions.values():
            yield Execution(instruction, times, fused, in_loop)
            called = instruction.called
            if instruction.opcode == 'while':
                trips = trip_count(instruction)
                is_launch = trips is None and self._launched and computation is self.entry
                if trips is None and not is_launch:
                    self.unknown_loops.append(instruction.op_name or instruction.name)
                turns = 1 if is_launch else times * (1 if trips is None else trips)
                for inner in called['condition'] + called['body']:
                    yield from self._run(inner, turns, fused, not is_launch)
            elif instruction.opcode == 'conditional':
                branches = [list(self._run(inner, times, fused, in_loop)) for inners in called.values()
                            for inner in inners]
                yield from max(branches, key=_weight)
            else:
                for inner in (c for inners in called.values() for c in inners):
                    yield from self._run(inner, times, fused or instruction.opcode != 'call', in_loop)


def _weight(branch):
    return sum(run.times * (run.instruction.flops + (0 if run.fused else run.instruction.hbm_bytes)) for run in branch)


@dataclasses.dataclass(frozen=True)
class Window:
    """A convolution along one spatial dimension. meetings: pairs of an output and a kernel position on an input."""
    size: int
    kernel: int
    out: int
    lhs_dilate: int
    meetings: int


def windows(instruction):
    """A convolution's Windows, and {label: size} of its left and right operand's other dimensions: b, f and i, o."""
    left, right, out = re.match(r'(\w+)_(\w+)->(\w+)', instruction.attribute('dim_labels')).groups()
    lhs, rhs = (dict(zip(labels, o.shapes[0].dims)) for labels, o in zip((left, right), instruction.operands))
    result = dict(zip(out, instruction.shapes[0].dims))
    given = dict(part.split('=') for part in instruction.attribute('window').split())
    found = []
    for i, label in enumerate(sorted(filter(str.isdigit, out))):
        low, stride, lhs_dilate, rhs_dilate = (
            int(given[key].split('x')[i].split('_')[0]) if key in given else default
            for key, default in (('pad', 0), ('stride', 1), ('lhs_dilate', 1), ('rhs_dilate', 1)))
        sizes = lhs[label], rhs[label], result[label]
        found.append(Window(*sizes, lhs_dilate, _meetings(*sizes, low, stride, lhs_dilate, rhs_dilate)))
    return found, {**lhs, **rhs}


def groups(instruction):
    """The groups of a convolution: each, of features or of the batch, is a product of its own."""
    return int(instruction.attribute('feature_group_count', 1)) * int(instruction.attribute('batch_group_count', 1))


def _convolution_flops(instruction):
    """As the compiler counts: only where a kernel element meets an input element, not padding or a dilation's gap."""
    along, sizes = windows(instruction)
    return 2 * math.prod(w.meetings for w in along) * sizes['b'] * sizes['f'] * sizes['o'] // groups(instruction)


@functools.lru_cache(maxsize=None)
def _meetings(size, kernel, out, low, stride, lhs_dilate, rhs_dilate):
    last = (size - 1) * lhs_dilate
    if lhs_dilate == 1:
        starts = (k * rhs_dilate - low for k in range(kernel))
        return sum(max(0, min(out - 1, (last - s) // stride) - max(0, -(s // stride)) + 1) for s in starts)
    return sum(0 <= at <= last and at % lhs_dilate == 0 for k in range(kernel)
               for at in range(k * rhs_dilate - low, k * rhs_dilate - low + out * stride, stride))


def _collective_bytes(instruction, kind):
    if kind == 'all-gather':    # its start also carries the operands
        return sum(s.padded_bytes for s in instruction.shapes[-len(instruction.operands):])
    return sum(s.padded_bytes for operand in instruction.operands for s in operand.shapes)


def _hbm_bytes(instruction):
    opcode, operands, result = instruction.opcode, instruction.operands, instruction.shapes
    if opcode in _FREE or opcode.endswith('-done') or instruction.attribute('custom_call_target') in _FREE_TARGETS:
        return 0
    if opcode in ('fusion', 'async-start'):
        return _fusion_bytes(instruction)
    if opcode == 'copy-start':
        return _in_hbm(result[:1]) + _in_hbm(operands[0].shapes)
    if opcode.removesuffix('-start') in _SLICES:
        part = result[len(operands[0].shapes):-1] if opcode.endswith('-start') else result
        read = sum(s.padded_bytes for s in part) if _in_hbm(operands[0].shapes) else 0
        return read + _in_hbm(part) + sum(_in_hbm(o.shapes) for o in operands[1:])
    if opcode in _UPDATES:
        update = operands[_UPDATES[opcode]].shapes
        # Read the update and indices; write it, and for a scatter first read what is there.
        there = sum(s.padded_bytes for s in update) * _UPDATES[opcode] if _in_hbm(result) else 0
        return there + sum(_in_hbm(o.shapes) for o in operands[1:])
    if opcode == 'send':        # its result is its operand
        result = ()
    elif opcode.endswith('-start'):     # of a collective; some give (operands, results, ...)
        result = result[len(operands):2 * len(operands)] or result
    return _in_hbm(result) + sum(_in_hbm(o.shapes) for o in dict.fromkeys(operands))


def _in_hbm(arrays):
    return sum(s.padded_bytes for s in arrays if s.space == 0)


def _fusion_bytes(fusion):
    inner = next(iter(fusion.called.values()))[0]
    read = {}
    for i, operand in enumerate(fusion.operands):
        read[operand.name] = read.get(operand.name, 0) + _read(inner.parameters[i])
    total = sum(min(_in_hbm(o.shapes), read[o.name]) for o in dict.fromkeys(fusion.operands))
    results = fusion.shapes
    if fusion.opcode == 'async-start':      # (operands, results, context)
        results = results[sum(len(o.shapes) for o in fusion.operands):][:len(inner.root.shapes)]
    written = inner.root.operands if inner.root.opcode == 'tuple' else [inner.root]
    if len(written) != len(results):
        return total + _in_hbm(results)
    return total + sum(min(_in_hbm([s]), _written(w)) for s, w in zip(results, written))


def _read(value, callers=()):
    """Bytes that a fusion reads of a value that it is given, at most; math.inf is all of it.

    callers: the fusions, outermost first, inside which the value stands.
    """
    if value is value.computation.root:
        return _read(callers[-1], callers[:-1]) if callers else math.inf
    total = 0
    for user in value.computation.users[value.name]:
        first = user.operands[0] is value and value not in user.operands[1:]
        if user.opcode in _RENAMES:
            total += _read(user, callers)
        elif user.opcode in _SLICES and first:
            total += user.shapes[0].padded_bytes
        elif user.opcode in _UPDATES and first:
            update = user.operands[_UPDATES[user.opcode]]
            total += update.shapes[0].padded_bytes if user.opcode == 'scatter' else 0
        elif user.opcode == 'fusion':
            inner = user.called['calls'][0]
            total += sum(_read(inner.parameters[i], callers + (user,)) for i, o in enumerate(user.operands)
                         if o is value)
        else:
            return math.inf
    return total


def _written(value):
    """Bytes that a fusion writes for one of its results, at most; math.inf is all of it."""
    updated = _updated_in_place(value)
    return updated[1] if updated else math.inf


def _updated_in_place(value):
    """(parameter, bytes of the update) where `value` is a parameter of its computation with a part replaced."""
    value = _renamed(value)
    if value.opcode == 'fusion':
        updated = _updated_in_place(value.called['calls'][0].root)
        buffer, size = (_renamed(value.operands[updated[0].index]), updated[1]) if updated else (value, 0)
    elif value.opcode in _UPDATES:
        buffer, size = _renamed(value.operands[0]), value.operands[_UPDATES[value.opcode]].shapes[0].padded_bytes
    else:
        return None
    return (buffer, size) if buffer.opcode == 'parameter' else None


def _renamed(value):
    """What `value` is another name of."""
    while value.opcode in _RENAMES:
        value = value.operands[0]
    return value
