"""Walking a graph, and what a TPU cannot run, where a function has no graph of its own."""

import tensorflow as tf

from strategies import graphs, tpu_rules
from training.flops import count_flops

B, T, CLASSES, LABELS = 2, 6, 5, 3


def ctc_step(logits, labels, lengths, frames, weights):
    """Loss and gradient of a linear layer under CTC, whose loops TensorFlow builds by Defun."""
    with tf.GradientTape() as tape:
        tape.watch(weights)
        scores = tf.reshape(tf.reshape(logits, [B * T, CLASSES]) @ weights, [B, T, CLASSES])
        loss = tf.reduce_sum(tf.nn.ctc_loss(labels, scores, lengths, frames, logits_time_major=False, blank_index=0))
    return loss, tape.gradient(loss, weights)


def traced(step):
    spec = tf.TensorSpec
    return tf.function(step, jit_compile=True).get_concrete_function(
        spec([B, T, CLASSES]), spec([B, LABELS], tf.int32), spec([B], tf.int32), spec([B], tf.int32),
        spec([CLASSES, CLASSES]))


def test_a_function_without_a_graph_does_not_end_the_walk():
    graph = traced(ctc_step).graph
    names = [name for op in graph.get_operations() for name in graphs.called_functions(op)]
    assert any(name in graph._functions and graphs.function_graph(graph, name) is None for name in names)
    assert tpu_rules.violations(graph) == []


def test_what_stands_beside_such_a_function_is_still_found():
    def printing(*arguments):
        loss, gradient = ctc_step(*arguments)
        tf.print(loss)
        return gradient
    assert [found.type for found in tpu_rules.violations(traced(printing).graph)] == ['StringFormat', 'PrintV2']


def test_products_beside_such_a_function_are_counted():
    # Forward, and the gradient by the weights; none by the features.
    assert count_flops(traced(ctc_step)) == 2 * (2 * B * T * CLASSES * CLASSES)
