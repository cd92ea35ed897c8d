"""Floating-point operations of a traced function: its matrix products and convolutions, a multiply-add as two.

Element-wise work is left out, as is usual (arXiv:2204.02311, appendix B); it moves bytes rather than counting here.
"""

import math

import tensorflow as tf

from strategies.graphs import function_graph


def count_flops(concrete_function):
    """Returns the count for one call. Loops are multiplied by their trip count where the graph states it."""
    return _graph_flops(concrete_function.graph)


def _graph_flops(graph):
    return sum(_operation_flops(op, graph) for op in _live(graph))


def _live(graph):
    """Operations that an output needs: TensorFlow prunes the others, such as the gradient of a model's input."""
    live, waiting = set(), [tensor.op for tensor in graph.outputs] + list(graph.control_outputs)
    while waiting:
        op = waiting.pop()
        if op not in live:
            live.add(op)
            waiting += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    return live


def _operation_flops(op, graph):
    if op.type in _COUNTERS:
        return _COUNTERS[op.type](op)
    if op.type in ('While', 'StatelessWhile'):
        return _trips(op) * _called_flops(graph, op.get_attr('body').name)
    if op.type in ('If', 'StatelessIf'):
        return max(_called_flops(graph, op.get_attr(branch).name) for branch in ('then_branch', 'else_branch'))
    if op.type in ('PartitionedCall', 'StatefulPartitionedCall'):
        return _called_flops(graph, op.get_attr('f').name)
    return 0


def _trips(op):
    """while_v2 passes (counter, maximum_iterations, ...); Keras's RNN gives the latter as the largest length."""
    bound = op.inputs[1]
    trips = tf.get_static_value(bound)
    if trips is None and bound.op.type == 'Max':
        lengths = tf.get_static_value(bound.op.inputs[0])
        trips = None if lengths is None else lengths.max()
    return int(trips) if trips is not None and bound.dtype == tf.int32 and trips > 0 else 1


def _called_flops(graph, name):
    body = function_graph(graph, name)
    return 0 if body is None else _graph_flops(body)


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


def _recurrent(products):
    """cuDNN's layer, of one direction, as Keras takes it. products: 1 forward, 2 backward."""
    def flops(op):
        x, units = op.inputs[0].shape, op.inputs[1].shape[-1]                            # [B, T, F] or [T, B, F]
        gates = {b'lstm': 4, b'gru': 3}[op.get_attr('rnn_mode')]
        return 2 * products * x[0] * x[1] * (x[2] + units) * gates * units
    return flops


_COUNTERS = {
    'CudnnRNNV3': _recurrent(1), 'CudnnRNNBackpropV3': _recurrent(2),
    'MatMul': _matmul, 'BatchMatMulV2': _batch_matmul, 'BatchMatMul': _batch_matmul, 'Einsum': _einsum,
    'Conv2D': _convolution(lambda op: op.inputs[1].shape, lambda op: op.outputs[0].shape),
    'Conv2DBackpropFilter': _convolution(lambda op: op.outputs[0].shape, lambda op: op.inputs[2].shape),
    'Conv2DBackpropInput': _convolution(lambda op: op.inputs[1].shape, lambda op: op.inputs[2].shape),
}
