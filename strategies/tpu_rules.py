"""What a TPU cannot run, found in a traced graph, with the operation and the line of source that made it.

A TPU runs one compiled program of static shapes. The compiler would say so too, but names neither layer nor line.
"""

import sysconfig
from typing import NamedTuple

import tensorflow as tf

from strategies.graphs import called_functions, function_graph

HOST_OPS = {'PyFunc', 'PyFuncStateless', 'EagerPyFunc', 'PrintV2', 'Print', 'ReadFile', 'WriteFile', 'DecodeJpeg',
            'DecodePng', 'DecodeImage', 'ParseExampleV2', 'LookupTableFindV2', 'LookupTableImportV2', 'WriteSummary',
            'WriteScalarSummary', 'IteratorGetNext', 'Timestamp'}     # what strings do not give away


class Violation(NamedTuple):
    operation: str     # name in the graph
    type: str          # of the operation, such as StringLower
    reason: str
    source: str        # file:line that made it, or ''

    def __str__(self):
        return f'{self.type} {self.operation}: {self.reason}' + (f' ({self.source})' if self.source else '')


def violations(graph, operations=None):
    """Every operation that a TPU cannot run, in the graph and in the bodies of its loops, branches and calls.

    Args:
        graph: a FuncGraph. operations: only these of it, and what they call; default all.

    Returns:
        List of Violation, in order of creation.
    """
    found = []
    for op in graph.get_operations() if operations is None else operations:
        if reason := _reason(op):
            found.append(Violation(op.name, op.type, reason, source_line(op)))
        for name in called_functions(op):
            if (body := function_graph(graph, name)) is not None:
                found += violations(body)
    return found


def source_line(op):
    """'file:line' of the innermost line outside installed packages that made the operation, or ''."""
    installed = (sysconfig.get_paths()['purelib'], sysconfig.get_paths()['stdlib'], '<')
    lines = [f'{frame.filename}:{frame.lineno}' for frame in op.traceback or ()
             if not frame.filename.startswith(installed)]
    return lines[-1] if lines else ''


def _reason(op):
    if op.type == 'Placeholder':      # of a loop's body: whatever comes in was looked at where it was made
        return None
    if op.type == 'BroadcastGradientArgs':      # axes, which the compiler computes from its operands' shapes
        return None
    if op.type in HOST_OPS:
        return 'runs on the host'
    if any(tensor.dtype == tf.string for tensor in (*op.inputs, *op.outputs)):
        return 'has a string'
    for tensor in op.outputs:
        # Handles of variables and tensor lists have no shape of their own.
        if tensor.dtype not in (tf.resource, tf.variant) and not tensor.shape.is_fully_defined():
            return f'has the dynamic shape {tensor.shape}'
    return None
