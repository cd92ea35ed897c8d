"""A run by jax's runtime as its user meets it: killed, resumed, moved to TensorFlow's and back, refused in one line.

    pytest -m slow tests/test_pjrt.py

A start costs ten seconds, so that one run goes through all that may happen to it. That every model and task ends where
TensorFlow's runtime does is in test_pjrt_models.py.
"""

import ctypes
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
from training.checkpoint import Checkpoints

pytestmark = pytest.mark.skipif(importlib.util.find_spec('jax') is None, reason='needs pip install -e ".[tpu]"')
STEPS = 120
TRAIN = ['train.py', '--model=mlp', f'--steps={STEPS}', '--augment=shift', '--ema=0.9', '--eval_every=40',
         '--log_every=10', '--checkpoint_every=15', '--accumulate=4', '--noexport', '--strategy=cpu']
PJRT = ['--runtime=pjrt', '--virtual_devices=2']


def results(folder):
    return json.loads((folder / 'results.json').read_text())


@pytest.fixture(scope='module')
def whole(run_python, tmp_path_factory):
    """The folder of a run by PJRT on two devices that nobody interrupted."""
    folder = tmp_path_factory.mktemp('pjrt') / 'run'
    run_python(*TRAIN, *PJRT, f'--workdir={folder}')
    return folder


def kill(folder, number, *flags):
    """Starts the run, or goes on with it, and sends a signal once it has a new checkpoint, before its end."""
    def newest():
        return max(Checkpoints(folder / 'checkpoints').steps(), default=0)
    before = newest()
    process = subprocess.Popen([sys.executable, *TRAIN, *flags, '--steps_per_call=1', f'--workdir={folder}'], cwd=ROOT,
                               env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    while process.poll() is None and newest() == before:
        time.sleep(0.02)
    process.send_signal(number)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == (PREEMPTED if number == signal.SIGTERM else -number)
    assert f'resuming at step {before} ' in said if before else 'a new run of' in said
    assert before < newest() < STEPS and not (folder / 'results.json').exists()


@pytest.mark.slow
def test_killed_and_resumed_equals_never_interrupted(whole, run_python, tmp_path):
    """Bit for bit, on 2 devices, then 4, then those of 2 processes."""
    folder = tmp_path / 'run'
    kill(folder, signal.SIGKILL, *PJRT)
    kill(folder, signal.SIGTERM, '--runtime=pjrt', '--virtual_devices=4')
    done = run_python(*TRAIN, '--runtime=pjrt', '--num_workers=2', f'--workdir={folder}')
    assert 'resuming at step' in done.stdout and results(folder)['workers'] == results(folder)['replicas'] == 2
    for field in ('weights_sha256', 'eval', 'best', 'examples_seen'):
        assert results(folder)[field] == results(whole)[field]


@pytest.mark.slow
def test_a_run_goes_from_one_runtime_to_the_other_and_back(whole, run_python, tmp_path):
    folder = tmp_path / 'run'
    kill(folder, signal.SIGKILL)
    kill(folder, signal.SIGKILL, *PJRT)
    assert 'resuming at step' in run_python(*TRAIN, f'--workdir={folder}').stdout
    one, other = (Checkpoints(run / 'checkpoints').newest()[0] for run in (whole, folder))
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_allclose(other[name], array, atol=1e-4 * max(np.abs(array).max(), 1e-3), err_msg=name)
    assert results(folder)['eval']['count'] == results(whole)['eval']['count'] == 360
    assert (results(folder)['runtime'], results(whole)['runtime']) == ('tensorflow', 'pjrt')


@pytest.mark.slow
def test_evaluate_takes_the_runtime(whole, run_python):
    done = run_python('evaluate.py', f'--workdir={whole}', '--strategy=cpu', *PJRT)
    values, trained = json.loads(done.stdout), results(whole)['eval']
    assert (values['accuracy'], values['count']) == (trained['accuracy'], trained['count'])
    assert values['loss'] == pytest.approx(trained['loss'], rel=1e-6)      # in one piece, not in micro-batches


# train.run for each of these options, one after the other: a process for each would import TensorFlow each time.
RUNS = '''
import json, sys
import recipes, train
from errors import RunError, UserError
from settings import Options
fields, *runs = json.loads(sys.argv[1])
recipe = recipes.load("mlp_digits")[1].replace(**fields)
for options in runs:
    try:
        train.run(recipe, Options(**options))
    except (RunError, UserError) as error:
        print("error:", error, flush=True)
    print("end of a run", flush=True)
'''


def lines_of(run_python, fields, runs):
    """The lines that each run prints, its error the last."""
    done = run_python('-c', RUNS, json.dumps([fields, *runs]))
    return [said.splitlines() for said in done.stdout.split('end of a run\n')[:-1]]


@pytest.mark.slow
def test_gradients_that_are_not_finite_end_a_run_with_the_same_report(run_python, tmp_path):
    """Step 0 makes weights of 1e17, and no gradient after it is finite."""
    kinds = [(on_nan, runtime) for on_nan in ('skip', 'rollback') for runtime in ('tensorflow', 'pjrt')]
    folders = [tmp_path / f'{on_nan}, {runtime}' for on_nan, runtime in kinds]
    said = lines_of(run_python, {'optimizer': 'sgd', 'learning_rate': 1e20, 'steps': 20}, [
        {'runtime': runtime, 'on_nan': on_nan, 'nan_limit': 5, 'strategy': 'cpu', 'export': False, 'steps_per_call': 7,
         'workdir': str(folder)} for (on_nan, runtime), folder in zip(kinds, folders)])
    said = [[line.replace(str(folder), '') for line in lines if line.startswith(('error', 'warning'))]
            for lines, folder in zip(said, folders, strict=True)]
    reports = [json.loads((folder / 'not_finite.json').read_text()) for folder in folders]
    assert said[0] == said[1] and said[2] == said[3] and [len(said[0]), len(said[2])] == [1, 5]
    assert reports[0] == reports[1] and reports[2] == reports[3]
    assert all(set(report['gradient_norms'].values()) == {'nan'} for report in reports)


CANNOT = [      # in this order: jax has 3 devices from the first on
    ({'strategy': 'cpu', 'virtual_devices': 3}, '`batch_size` is the global batch and must be divisible by the '
                                                'number of replicas'),
    ({'strategy': 'cpu', 'virtual_devices': 2}, '`virtual_devices` must be chosen before anything else uses jax. '
                                                'Received: virtual_devices=2'),
    ({'strategy': 'cpu', 'deterministic': 'off'}, '`deterministic` off is for CPU and GPU by runtime tensorflow'),
    ({'strategy': 'multiworker'}, '`strategy` multiworker is that of runtime tensorflow'),
    ({'strategy': 'cpu', 'tpu': 'grpc://10.0.0.1:8470'}, '`tpu` names the TPU of strategy tpu or auto'),
    ({'strategy': 'gpu', 'virtual_devices': 2}, '`virtual_devices` with runtime pjrt is for the CPU. Received: '),
    ({'strategy': 'auto', 'tpu': 'mine'}, "`tpu` with runtime pjrt must be local. Received: tpu='mine'")]


def test_what_cannot_be_is_one_line(run_python, tmp_path):
    said = lines_of(run_python, {}, [{'runtime': 'pjrt', 'workdir': str(tmp_path / 'run'), **options}
                                     for options, _ in CANNOT])
    for (options, message), lines in zip(CANNOT, said, strict=True):
        assert len(lines) == 1 and lines[0].startswith(f'error: {message}'), options
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('flags, message', [
    (['--strategy=gpu'], '`runtime` pjrt finds no GPU: '),
    (['--strategy=gpu', '--num_workers=2'], '`num_workers` needs strategy cpu, with runtime pjrt. Received: ')])
def test_a_flag_that_cannot_be_ends_the_command(run_python, tmp_path, flags, message):
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


FAULTS = """
from strategies import selection
selection.select('cpu', runtime='pjrt')
import resource, jax
product = jax.jit(lambda x: jax.lax.optimization_barrier(x[:, None] * x)[::2].sum())
x = jax.numpy.linspace(1., 2., 6000, dtype='float32')
print(product.lower(x).compile().memory_analysis().temp_size_in_bytes // 4096)
for _ in range(40):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    product(x).block_until_ready()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), 'mallopt'), reason='for glibc')
def test_a_launch_does_not_fetch_its_memory_again(run_python):
    """Of the Transformer's step that was a quarter of the CPU time."""
    pages, *faults = map(int, run_python('-c', FAULTS).stdout.split())
    assert pages >= 16384
    assert sum(count > pages / 2 for count in faults[20:]) < 10      # of 20; at first the heap grows
