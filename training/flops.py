"""Floating-point operations of a traced function: its matrix products and convolutions, a multiply-add as two.

Element-wise work is left out, as is usual (arXiv:2204.02311, appendix B); it moves bytes rather than counting here.
"""

import math

import tensorflow as tf


def count_flops(concrete_function):
    """Returns the count for one call. Loops are multiplied by their trip count where the graph states it."""
    return _graph_flops(concrete_function.graph)


def _graph_flops(graph):
    return sum(_operation_flops(op, graph) for op in graph.get_operations())


def _operation_flops(op, graph):
    if op.type in _COUNTERS:
        return _COUNTERS[op.type](op)
    if op.type in ('While', 'StatelessWhile'):
        trips = tf.get_static_value(op.inputs[1])      # while_v2 passes (counter, maximum_iterations, ...)
        known = trips is not None and op.inputs[1].dtype == tf.int32 and trips.ndim == 0 and trips > 0
        return int(trips if known else 1) * _called_flops(graph, op.get_attr('body').name)
    if op.type in ('If', 'StatelessIf'):
        return max(_called_flops(graph, op.get_attr(branch).name) for branch in ('then_branch', 'else_branch'))
    if op.type in ('PartitionedCall', 'StatefulPartitionedCall'):
        return _called_flops(graph, op.get_attr('f').name)
    return 0


def _called_flops(graph, name):
    while graph is not None:
        if name in graph._functions:     # no public way from a call to its graph
            return _graph_flops(graph._functions[name].graph)
        graph = getattr(graph, 'outer_graph', None)
    return 0


def _matmul(op):
    a = op.inputs[0].shape
    inner = a[0] if op.get_attr('transpose_a') else a[1]
    return 2 * op.outputs[0].shape.num_elements() * inner


def _batch_matmul(op):
    a = op.inputs[0].shape
    return 2 * op.outputs[0].shape.num_elements() * (a[-2] if op.get_attr('adj_x') else a[-1])


def _einsum(op):
    inputs, output = op.get_attr('equation').decode().split('->')
    sizes = {}
    for letters, tensor in zip(inputs.split(','), op.inputs):
        sizes.update(zip(letters, tensor.shape))
    return 2 * math.prod(sizes.values()) if ',' in inputs else 0


def _convolution(kernel, image):
    """Any of the three products of a convolution: 2 * output pixels * kernel elements."""
    def flops(op):
        out, (height, width, channels, filters) = image(op), kernel(op)
        return 2 * math.prod(out[:3]) * height * width * channels * filters
    return flops


_COUNTERS = {
    'MatMul': _matmul, 'BatchMatMulV2': _batch_matmul, 'BatchMatMul': _batch_matmul, 'Einsum': _einsum,
    'Conv2D': _convolution(lambda op: op.inputs[1].shape, lambda op: op.outputs[0].shape),
    'Conv2DBackpropFilter': _convolution(lambda op: op.outputs[0].shape, lambda op: op.inputs[2].shape),
    'Conv2DBackpropInput': _convolution(lambda op: op.inputs[1].shape, lambda op: op.inputs[2].shape),
}
