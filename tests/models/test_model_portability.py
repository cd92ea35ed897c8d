"""Saved in one process and loaded in another; computed by TensorFlow and by JAX. Both cost a process, once."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import models
from tests.models.examples import CASES, example

ROOT = pathlib.Path(__file__).parents[2]
# Both processes write the logits of each model to NAME.LABEL.npy.
PREAMBLE = '''
import sys
import keras, numpy as np
import models
from tests.models.examples import CASES
folder, label = sys.argv[1:]
def inputs(name):
    arrays = dict(np.load(f'{folder}/{name}.inputs.npz'))
    return arrays.get('image', arrays)
def write(name, call):
    np.save(f'{folder}/{name}.{label}.npy', keras.ops.convert_to_numpy(call(inputs(name))))
'''
LOAD = PREAMBLE + '''
for name in CASES:
    write(name, keras.models.load_model(f'{folder}/{name}.keras'))
'''
# jax.jit, because JAX compiles each operation of an eager call by itself, which takes 3 times as long.
REBUILD = PREAMBLE + '''
import jax
assert keras.backend.backend() == 'jax'
for name, (kind, sizes) in CASES.items():
    model = models.build(kind, sizes)
    weights = np.load(f'{folder}/{name}.weights.npz')
    model.set_weights([weights[key] for key in weights.files])
    variables = model.trainable_variables, model.non_trainable_variables
    write(name, jax.jit(lambda x: model.stateless_call(*variables, x)[0]))
assert 'tensorflow' not in sys.modules
'''


def run(script, folder, label, **environment):
    environment = {**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3', 'CUDA_VISIBLE_DEVICES': '', 'PYTHONPATH': str(ROOT),
                   **environment}
    command = [sys.executable, '-W', 'error::UserWarning', '-c', script, str(folder), label]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """All models as .keras, their weights in order, an input and the logits for it."""
    folder = tmp_path_factory.mktemp('portability')
    keras.utils.set_random_seed(7)
    for name, (kind, sizes) in CASES.items():
        model, inputs = models.build(kind, sizes), example(sizes)
        inputs = inputs if isinstance(inputs, dict) else {'image': inputs}
        np.savez(folder / f'{name}.inputs.npz', **inputs)
        np.savez(folder / f'{name}.weights.npz', *model.get_weights())
        np.save(folder / f'{name}.here.npy', model(inputs.get('image', inputs)))
        model.save(folder / f'{name}.keras')
    return folder


def compare(folder, label, tolerance):
    for name in CASES:
        here, there = (np.load(folder / f'{name}.{which}.npy') for which in ('here', label))
        scale = np.abs(here).max()
        assert scale > 1e-3
        # Logits as large as those of a new DeepLab, 30 to 40, have fewer bits behind the point.
        np.testing.assert_allclose(there, here, atol=tolerance * max(scale / 8, min(100 * scale, 1)), err_msg=name)


@pytest.mark.slow
def test_saved_models_load_in_a_new_process(folder):
    run(LOAD, folder, 'loaded', KERAS_BACKEND='tensorflow')
    compare(folder, 'loaded', tolerance=1e-6)


@pytest.mark.slow
def test_tensorflow_and_jax_agree(folder):
    pytest.importorskip('jax')
    # Each is run but once: compiling takes longer than running.
    run(REBUILD, folder, 'jax', KERAS_BACKEND='jax', JAX_PLATFORMS='cpu', JAX_DISABLE_MOST_OPTIMIZATIONS='1')
    compare(folder, 'jax', tolerance=1e-4)
