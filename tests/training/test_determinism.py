"""Equal inputs give equal bits (E2), also where TensorFlow rewrites large graphs. In a process of its own each."""

import json

import pytest

from errors import UserError
from training.randomness import make_deterministic

# A sum of three gradients of 64 MiB each, of operations that take unlike times: 3 of 30 had other bits.
SUM = '''
import sys
import numpy as np, tensorflow as tf
from training.randomness import make_deterministic
tf.add(1., 1.)                                       # the run's context exists already
if sys.argv[1] == 'ours':
    make_deterministic()
else:
    tf.config.experimental.enable_op_determinism()
random = np.random.default_rng(0)
logits = tf.constant(random.standard_normal((64, 64, 4000), np.float32))
y = tf.constant(random.integers(0, 4000, (64, 64)))

@tf.function
def gradient():
    with tf.GradientTape() as tape:
        tape.watch(logits)
        hard = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
        uniform = tf.reduce_logsumexp(logits, axis=-1) - tf.reduce_mean(logits, axis=-1)
        loss = tf.reduce_sum(0.9 * hard + 0.1 * uniform)
    return tape.gradient(loss, logits)

first = gradient().numpy()
print(any(not np.array_equal(gradient().numpy(), first) for _ in range(int(sys.argv[2]))))
'''


@pytest.mark.slow
def test_a_sum_of_large_tensors_has_one_order(run_python):
    assert run_python('-c', SUM, 'ours', 40).stdout == 'False\n'
    # What this is for; it ends at the first that differs. Once none does, the private option can go.
    assert run_python('-c', SUM, 'op determinism alone', 1000).stdout == 'True\n'


# What a process says of itself, for each choice in order.
CHOICES = '''
import sys
from tensorflow.python.framework import config
from errors import UserError
from training.randomness import make_deterministic
for choice in sys.argv[1:]:
    try:
        print(choice, make_deterministic('cpu', choice), config.is_op_determinism_enabled())
    except UserError as error:
        print(error)
'''


def test_off_is_off_and_refused_where_it_cannot_be(run_python):
    off, auto, on, again = run_python('-c', CHOICES, 'off', 'auto', 'on', 'off').stdout.splitlines()
    assert (off, auto, on) == ('off False False', 'auto True True', 'on True True')
    assert again.startswith('`deterministic` off needs a process of its own: ') and again.endswith('deterministic=off')
    with pytest.raises(UserError, match='`deterministic` off is for CPU and GPU by .* Received: deterministic=off'):
        make_deterministic('xla', 'off')
    assert make_deterministic('xla', 'on')


@pytest.mark.slow
def test_a_run_says_that_steps_were_not_deterministic_also_when_a_later_start_is(run_python, tmp_path):
    def train(*flags):
        done = run_python('train.py', '--model=cnn', '--steps=4', f'--workdir={tmp_path}', '--noexport', *flags)
        return done.stdout, json.loads((tmp_path / 'results.json').read_text())
    # XLA compiles the gradient of max-pooling where it need not be deterministic.
    said, results = train('--deterministic=off', '--jit=on')
    assert 'not deterministic (--deterministic=off)' in said and 'XLA on: asked for' in said
    assert results['deterministic'] is False and results['tensor_float_32'] is False
    (tmp_path / 'results.json').unlink()
    said, results = train()
    assert 'resuming at step 4' in said and 'not deterministic (--deterministic=off)' in said
    assert results['deterministic'] is False


@pytest.mark.slow
def test_a_run_says_that_it_is_deterministic(run_python, tmp_path):
    done = run_python('train.py', '--model=mlp', '--steps=4', f'--workdir={tmp_path}', '--noexport')
    assert '--deterministic=off' not in done.stdout
    assert json.loads((tmp_path / 'results.json').read_text())['deterministic'] is True
    done = run_python('evaluate.py', f'--workdir={tmp_path}', '--deterministic=off', check=False)
    assert done.returncode == 2 and "Unknown command line flag 'deterministic'" in done.stderr
