"""The same run by jax's runtime: as many devices as asked for, ends where TensorFlow's does; E1, E2 and E7 hold in it.

    pytest -m slow tests/test_pjrt.py
"""

import importlib.util
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from errors import PREEMPTED
from strategies import doctor
from tests.conftest import ROOT, clean_environment
from tests.test_equality_replicas import EXACT, MAIN, SPOILT, TOLERANCE, difference, run  # noqa: F401
from training.checkpoint import Checkpoints

pytestmark = pytest.mark.skipif(importlib.util.find_spec('jax') is None, reason='needs pip install -e ".[tpu]"')
MODELS = ['mlp', 'cnn', 'lstm', 'transformer', 'packed', 'regression', 'words']
TRAIN = ['train.py', '--model=mlp', '--steps=60', '--augment=shift', '--ema=0.9', '--eval_every=20', '--log_every=10',
         '--checkpoint_every=15', '--accumulate=4', '--noexport', '--strategy=cpu']
PJRT = ['--runtime=pjrt', '--virtual_devices=2']


@pytest.mark.slow
@pytest.mark.parametrize('devices', ['pjrt:1', 'pjrt:2', 'pjrt:8', 'pjrt:2x2'])
def test_a_run_ends_where_that_of_tensorflow_does(run, measured, devices):  # noqa: F811
    ours, theirs = run('cases', devices), run('cases', '1')
    for case in (MAIN, EXACT, 'sgd', *SPOILT):
        worst = difference(theirs[case], ours[case])
        measured('E1, PJRT', case, devices, worst)
        assert worst < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize('devices', ['pjrt:2', 'pjrt:8', 'pjrt:2x2'])
def test_micro_batches_have_the_same_bits_on_any_devices(run, devices):  # noqa: F811
    one, many = run('cases', 'pjrt:1'), run('cases', devices)
    assert difference(one[EXACT], many[EXACT]) == 0
    evaluated = [key for key in one[EXACT] if key.startswith('evaluation/')]
    assert len(evaluated) > 5
    for key in evaluated:
        np.testing.assert_array_equal(one[EXACT][key], many[EXACT][key], err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize('model', MODELS)
def test_each_model_ends_where_that_of_tensorflow_does(run, measured, model):  # noqa: F811
    setting = f'{model}, 8 micro-batches'
    ours, theirs = run('models', 'pjrt:2', '8 micro-batches')[setting], run('models', '1', '8 micro-batches')[setting]
    worst = difference(theirs, ours)
    measured('E1, PJRT', model, '2', worst)
    # Other kernels round otherwise, which turns max-pooling's choice, or a ReLU of one token, now and then.
    assert worst < (1e-3 if model in ('cnn', 'packed') else TOLERANCE)


def results(folder):
    return json.loads((folder / 'results.json').read_text())


@pytest.fixture(scope='module')
def whole(run_python, tmp_path_factory):
    """The folder of a run by PJRT on two devices that nobody interrupted."""
    folder = tmp_path_factory.mktemp('pjrt') / 'run'
    run_python(*TRAIN, *PJRT, f'--workdir={folder}')
    return folder


def kill(folder, number, *flags):
    """Starts the run and sends it a signal once it has a checkpoint, before its end."""
    process = subprocess.Popen([sys.executable, *TRAIN, *flags, '--steps_per_call=1', f'--workdir={folder}'], cwd=ROOT,
                               env=clean_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not Checkpoints(folder / 'checkpoints').steps():
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(120) == (PREEMPTED if number == signal.SIGTERM else -number)
    assert 0 < max(Checkpoints(folder / 'checkpoints').steps()) < 60 and not (folder / 'results.json').exists()


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM])
def test_killed_and_resumed_equals_never_interrupted(whole, run_python, tmp_path, number):
    kill(tmp_path / 'run', number, *PJRT)
    done = run_python(*TRAIN, '--runtime=pjrt', '--virtual_devices=4', f'--workdir={tmp_path / "run"}')
    assert 'resuming at step' in done.stdout
    assert results(tmp_path / 'run')['weights_sha256'] == results(whole)['weights_sha256']
    assert results(tmp_path / 'run')['eval'] == results(whole)['eval']


@pytest.mark.slow
@pytest.mark.parametrize('first, then', [(PJRT, []), ([], PJRT)])
def test_a_run_goes_from_one_runtime_to_the_other(whole, run_python, tmp_path, first, then):
    kill(tmp_path / 'run', signal.SIGKILL, *first)
    assert 'resuming at step' in run_python(*TRAIN, *then, f'--workdir={tmp_path / "run"}').stdout
    one, other = (Checkpoints(folder / 'checkpoints').newest()[0] for folder in (whole, tmp_path / 'run'))
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_allclose(other[name], array, atol=1e-4 * max(np.abs(array).max(), 1e-3), err_msg=name)
    assert results(tmp_path / 'run')['eval']['count'] == results(whole)['eval']['count'] == 360


@pytest.mark.parametrize('flags, message', [
    (['--strategy=gpu'], '`runtime` pjrt finds no GPU: '),
    (['--strategy=multiworker'], '`strategy` multiworker is that of runtime tensorflow'),
    (['--strategy=cpu', '--virtual_devices=3'], '`batch_size` is the global batch and must be divisible by the '
                                                'number of replicas'),
    (['--strategy=cpu', '--tpu=grpc://10.0.0.1:8470'], '`tpu` names the TPU of strategy tpu or auto'),
    (['--strategy=gpu', '--virtual_devices=2'], '`virtual_devices` with runtime pjrt is for the CPU. Received: '),
    (['--strategy=gpu', '--num_workers=2'], '`num_workers` needs strategy cpu, with runtime pjrt. Received: '),
    (['--strategy=auto', '--tpu=mine'], "`tpu` with runtime pjrt must be local. Received: tpu='mine'"),
    (['--strategy=cpu', '--deterministic=off'], '`deterministic` off is for CPU and GPU by runtime tensorflow')])
def test_what_cannot_be_is_one_line(run_python, tmp_path, flags, message):
    done = run_python('train.py', '--model=mlp', '--steps=2', '--runtime=pjrt', *flags,
                      f'--workdir={tmp_path / "run"}', check=False)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / 'run').exists()


def test_a_tpu_that_is_not_there_is_one_line(run_python, tmp_path):
    """libtpu, which looks for one, writes many."""
    if doctor.look().has_tpu or 'libtpu' not in doctor.look().packages:
        pytest.skip('this machine has a TPU, or no libtpu')
    done = run_python('train.py', '--model=mlp', '--runtime=pjrt', '--strategy=tpu', f'--workdir={tmp_path / "run"}',
                      check=False)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith('error: `runtime` pjrt finds no TPU: this machine has no TPU: ')


def test_a_jax_too_old_is_one_line(run_python, tmp_path):
    (tmp_path / 'jax-0.7.2.dist-info').mkdir()
    (tmp_path / 'jax-0.7.2.dist-info' / 'METADATA').write_text('Metadata-Version: 2.1\nName: jax\nVersion: 0.7.2\n')
    done = run_python('train.py', '--model=mlp', '--runtime=pjrt', '--strategy=cpu', f'--workdir={tmp_path / "run"}',
                      check=False, env={'PYTHONPATH': str(tmp_path)})
    assert done.returncode == 2 and done.stderr == (
        'error: `runtime` pjrt finds no CPU: jax 0.7.2 is too old: 0.8 or newer is needed. To fix it: pip install jax. '
        'Received: strategy=cpu, runtime=pjrt\n')


WITHOUT_JAX = ('import runpy, sys; sys.modules["jax"] = None; sys.argv[0] = "train.py"; '
               'runpy.run_path("train.py", run_name="__main__")')


def test_a_run_of_tensorflow_imports_no_jax(run_python, tmp_path):
    """tf.lite does, where there is one, and does without where there is none."""
    run_python('-c', WITHOUT_JAX, '--model=mlp', '--steps=2', '--strategy=cpu', f'--workdir={tmp_path / "run"}')
    assert results(tmp_path / 'run')['fingerprint'] is None


def test_jax_is_named_where_it_is_missing(run_python, tmp_path):
    done = run_python('-c', WITHOUT_JAX, '--model=mlp', '--strategy=cpu', '--runtime=pjrt',
                      f'--workdir={tmp_path / "run"}', check=False)
    assert done.returncode == 2
    assert done.stderr.startswith('error: `runtime` pjrt needs jax, 0.8 or newer: pip install jax.')


@pytest.mark.slow
@pytest.mark.parametrize('on_nan', ['skip', 'rollback'])
def test_gradients_that_are_not_finite_end_a_run_with_the_same_report(run_python, tmp_path, on_nan):
    """Step 0 makes weights of 1e17, and no gradient after it is finite."""
    said, reports = [], []
    for runtime in ('tensorflow', 'pjrt'):
        folder = tmp_path / runtime
        done = run_python('train.py', '--model=mlp', '--optimizer=sgd', '--learning_rate=1e20', '--steps=20',
                          '--nan_limit=5', f'--on_nan={on_nan}', f'--runtime={runtime}', '--strategy=cpu', '--noexport',
                          '--steps_per_call=7', f'--workdir={folder}', check=False)
        assert done.returncode == 1
        said.append([line.replace(str(folder), '') for line in done.stderr.splitlines()
                     + [line for line in done.stdout.splitlines() if line.startswith('warning')]])
        reports.append(json.loads((folder / 'not_finite.json').read_text()))
    assert said[0] == said[1] and len(said[0]) == (5 if on_nan == 'rollback' else 1)
    assert reports[0] == reports[1] and set(reports[0]['gradient_norms'].values()) == {'nan'}


@pytest.mark.slow
def test_evaluate_takes_the_runtime(whole, run_python):
    done = run_python('evaluate.py', f'--workdir={whole}', '--strategy=cpu', *PJRT)
    values, trained = json.loads(done.stdout), results(whole)['eval']
    assert (values['accuracy'], values['count']) == (trained['accuracy'], trained['count'])
    assert values['loss'] == pytest.approx(trained['loss'], rel=1e-6)      # in one piece, not in micro-batches


@pytest.mark.slow
def test_two_processes_train_together(whole, run_python, tmp_path):
    run_python(*TRAIN, '--runtime=pjrt', '--num_workers=2', f'--workdir={tmp_path / "run"}')
    assert results(tmp_path / 'run')['weights_sha256'] == results(whole)['weights_sha256']
    assert results(tmp_path / 'run')['workers'] == 2


def fingerprint(run_python, *flags):
    """That of preflight's report."""
    return json.loads(run_python('preflight.py', '--json', *flags).stdout)['fingerprint']


@pytest.mark.slow
def test_what_was_preflighted_is_what_runs(run_python, tmp_path):
    train = ['train.py', '--model=mlp', '--steps=2', '--precision=bfloat16', '--strategy=cpu', '--runtime=pjrt',
             '--noexport']
    done = run_python(*train, '--virtual_devices=8', f'--workdir={tmp_path / "run"}')
    found = results(tmp_path / 'run')
    assert found['fingerprint'] == fingerprint(run_python, '--model=mlp', '--steps=2')
    assert f'program   {found["fingerprint"]}, lowered in ' in done.stdout
    run_python(*train, '--virtual_devices=8', '--batch_size=64', f'--workdir={tmp_path / "other"}')
    assert results(tmp_path / 'other')['fingerprint'] != found['fingerprint']


@pytest.mark.slow
def test_so_are_dropout_and_micro_batches_which_a_tpu_adds_in_float32(run_python):
    """On CPU devices a run adds them in float64; here these devices pass for a TPU's."""
    preflight = fingerprint(run_python, '--model=lstm', '--dropout=0.3', '--accumulate=16', '--steps=2')
    assert run_python('-c', AS_A_TPU).stdout.split() == [preflight]


AS_A_TPU = """
import dataclasses
from strategies import pjrt
devices = dataclasses.replace(pjrt.select('cpu', virtual_devices=8), hardware='tpu')
import recipes, tensorflow as tf
from experiment import parts
from experiment.workdir import Workdir
from training.interrupt import FLAGS
recipe = recipes.find(model='lstm')[1].replace(dropout=0.3, accumulate=16, steps=2)
dataset, task = parts.open_data(recipe)
batches = parts.Batches(recipe, dataset, task, 8)
trainer, _ = parts.make_trainer(recipe, batches.rows, task, devices, Workdir('unused'))
print(trainer.runner(batches.training, 0, tf.Variable(tf.zeros([FLAGS]))).fingerprint)
"""
