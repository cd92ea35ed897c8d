"""How often a loop of a compiled program runs, from what its condition compares and what its body adds.

A value is known as (index, number): element `index` of what the loop carries, plus a number; index None is a constant.
"""

import re

_SAME_VALUE = {'copy', 'bitcast', 'reshape', 'convert', 'copy-start', 'copy-done'}
_FLIPPED = {'LT': 'GT', 'GT': 'LT', 'LE': 'GE', 'GE': 'LE', 'NE': 'NE'}


def trip_count(loop):
    """Returns how often the body of `loop`, an hlo.Instruction, runs; None where the text does not say.

    Where conditions are joined by `and`, those that count decide: TensorFlow joins a loop's own condition, which the
    compiler may have split into 32-bit halves, with its largest number of iterations.
    """
    if stated := re.search(r'known_trip_count\W+n\W+(\d+)', loop.attributes):
        return int(stated[1])
    return _runs(loop, *_entered(loop.called['condition'][0].root, ()))


def _runs(loop, condition, calls):
    """How often the body runs until `condition`, which stands inside `calls`, is false; None if unknown."""
    if condition.opcode == 'and':
        runs = [_runs(loop, *_entered(operand, calls)) for operand in condition.operands]
        return min((n for n in runs if n is not None), default=None)
    direction = condition.attribute('direction')
    if condition.opcode != 'compare' or direction not in _FLIPPED:
        return None
    left, right = (_value(operand, calls) for operand in condition.operands)
    runs = _counted(loop, left, direction, right)
    return _counted(loop, right, _FLIPPED[direction], left) if runs is None else runs


def _counted(loop, counter, direction, bound):
    if counter is None or counter[0] is None or bound is None:
        return None
    start, step, bound = _start(loop, counter), _step(loop, counter[0]), _unchanged(loop, bound)
    if None in (start, step, bound) or not step:
        return None
    if step < 0:
        start, step, bound, direction = -start, -step, -bound, _FLIPPED[direction]
    if direction == 'LE':
        bound, direction = bound + 1, 'LT'
    # A counter that steps over the number that it must not equal runs on.
    if direction == 'LT' or direction == 'NE' and bound >= start and (bound - start) % step == 0:
        return max(0, -(-(bound - start) // step))
    return None


def _start(loop, value):
    """The number that a carried value is before the loop; None if unknown."""
    carried = loop.operands[0]
    known = _known(carried.operands[value[0]]) if carried.opcode == 'tuple' else None
    return None if known is None else known + value[1]


def _step(loop, index):
    """What the body adds to element `index`; None if it does something else."""
    root = loop.called['body'][0].root
    value = _value(root.operands[index], ()) if root.opcode == 'tuple' else None
    return value[1] if value and value[0] == index else None


def _unchanged(loop, value):
    if value[0] is None:
        return value[1]
    return _start(loop, value) if _step(loop, value[0]) == 0 else None


def _known(instruction):
    """The number that it is, outside of fusions; None if unknown."""
    value = _value(instruction, ())
    if value is None or value[0] is None:
        return value and value[1]
    loop = instruction.computation.module.loops.get(instruction.computation.name)
    return _unchanged(loop, value) if loop else None


def _after(loop, index):
    """The number that element `index` is after the loop; None if unknown."""
    start, step = _start(loop, (index, 0)), _step(loop, index)
    if start is None or not step:
        return start if step == 0 else None
    trips = trip_count(loop)
    return None if trips is None else start + step * trips


def _value(instruction, calls):
    """(index, number), or None. calls: the fusions, outermost first, inside which the instruction stands."""
    opcode, operands = instruction.opcode, instruction.operands
    if opcode == 'constant':
        return (None, int(instruction.arguments)) if re.fullmatch(r'-?\d+', instruction.arguments) else None
    if opcode in _SAME_VALUE:
        return _value(operands[0], calls)
    if opcode == 'parameter':
        return _value(calls[-1].operands[instruction.index], calls[:-1]) if calls else None
    if opcode in ('fusion', 'call'):
        return _value(*_entered(instruction, calls))
    if opcode == 'get-tuple-element':
        return _element(instruction, calls)
    if opcode in ('add', 'subtract'):
        sign = 1 if opcode == 'add' else -1
        left, right = (_value(operand, calls) for operand in operands)
        if left and right and right[0] is None:
            return left[0], left[1] + sign * right[1]
        if left and right and left[0] is None and sign > 0:
            return right[0], left[1] + right[1]
    return None


def _element(instruction, calls):
    source, index = instruction.operands[0], instruction.index
    if source.opcode == 'parameter' and not calls:
        return index, 0
    if source.opcode == 'while':
        known = _after(source, index)
        return None if known is None else (None, known)
    source, calls = _entered(source, calls)
    return _value(source.operands[index], calls) if source.opcode == 'tuple' else None


def _entered(instruction, calls):
    """Where a fusion's result is made, and the calls to get there."""
    while instruction.opcode in ('fusion', 'call'):
        calls += (instruction,)
        instruction = next(iter(instruction.called.values()))[0].root
    return instruction, calls
