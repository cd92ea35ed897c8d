"""A fingerprint is of what a program computes, and of nothing else."""

import re

import pytest
import tensorflow as tf

from strategies.preflight import compiler


def lowered(scale=3., name='layer', rows=4, repeated=1, swapped=False):
    variables = [tf.Variable(tf.ones([2, 2])) for _ in range(2)]

    def step(x, y):
        for _ in range(repeated):
            with tf.name_scope(name):
                x = tf.tanh(x @ variables[0]) * scale - y
        variables[swapped].assign_add(tf.reduce_sum(x) * variables[1])
        return tf.while_loop(lambda i, _: i < 3, lambda i, s: (i + 1, s + x), (0, x))[1]
    spec = tf.TensorSpec([rows, 2])
    return compiler.lower(step, spec, spec)


def test_names_and_numbers_and_the_process_do_not_count():
    """The numbers of instructions go on in a process: the second lowering has others."""
    first, second = lowered(), lowered(name='layer_7')
    assert first.hlo != second.hlo
    assert first.fingerprint == second.fingerprint and re.fullmatch('[0-9a-f]{16}', first.fingerprint)


@pytest.mark.parametrize('change', [{'scale': 3.5}, {'rows': 8}, {'repeated': 2}, {'swapped': True}])
def test_what_is_computed_counts(change):
    assert lowered(**change).fingerprint != lowered().fingerprint
