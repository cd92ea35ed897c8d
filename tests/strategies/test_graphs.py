"""Walking a graph, and what a TPU cannot run, where a function has no graph of its own.

    python -m tests.strategies.test_graphs      traces in a process of its own, and prints what is found as JSON

Once tf.nn.ctc_loss was traced in a process, TensorFlow's bring-up of a TPU there fails with another message.
"""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT, clean_environment

B, T, CLASSES, LABELS = 2, 6, 5, 3


def main():
    import tensorflow as tf

    from strategies import graphs, tpu_rules
    from training.flops import count_flops

    def step(features, labels, lengths, frames, weights):
        """Loss and gradient of a linear layer under CTC, whose loops TensorFlow builds by Defun."""
        with tf.GradientTape() as tape:
            tape.watch(weights)
            logits = tf.reshape(tf.reshape(features, [B * T, CLASSES]) @ weights, [B, T, CLASSES])
            loss = tf.reduce_sum(tf.nn.ctc_loss(labels, logits, lengths, frames, logits_time_major=False,
                                                blank_index=0))
        return loss, tape.gradient(loss, weights)

    def printing(*arguments):
        loss, gradient = step(*arguments)
        tf.print(loss)
        return gradient

    spec = tf.TensorSpec
    specs = (spec([B, T, CLASSES]), spec([B, LABELS], tf.int32), spec([B], tf.int32), spec([B], tf.int32),
             spec([CLASSES, CLASSES]))
    traced, beside = (tf.function(f, jit_compile=True).get_concrete_function(*specs) for f in (step, printing))
    names = [name for op in traced.graph.get_operations() for name in graphs.called_functions(op)]
    without = [name for name in names if graphs.function_graph(traced.graph, name) is None]
    print(json.dumps({'without_graph': len(without), 'flops': count_flops(traced),
                      'violations': [found.type for found in tpu_rules.violations(traced.graph)],
                      'beside': [found.type for found in tpu_rules.violations(beside.graph)]}))


@pytest.fixture(scope='module')
def found():
    done = subprocess.run([sys.executable, '-m', 'tests.strategies.test_graphs'], cwd=ROOT, capture_output=True,
                          text=True, env=clean_environment(CUDA_VISIBLE_DEVICES=''))
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_a_function_without_a_graph_does_not_end_the_walk(found):
    assert found['without_graph'] > 0 and found['violations'] == []


def test_what_stands_beside_such_a_function_is_still_found(found):
    assert found['beside'] == ['StringFormat', 'PrintV2']


def test_products_beside_such_a_function_are_counted(found):
    # Forward, and the gradient by the weights; none by the features.
    assert found['flops'] == 2 * (2 * B * T * CLASSES * CLASSES)


if __name__ == '__main__':
    main()
