"""Faults as a user meets them: a file that goes bad during a run, broken checkpoints, numbers that explode."""

import json
import signal
import sys

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.test_front_doors import interrupted, results
from tests.test_workers_train import start, wait_for_checkpoint

pytestmark = pytest.mark.slow
LEVELS = 16       # of grey, in scikit-learn's digits


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """200 real digits as PNG files, a folder a class."""
    folder = tmp_path_factory.mktemp('digits')
    digits = load_digits()
    for i, (image, label) in enumerate(zip(digits.images[:200], digits.target)):
        (folder / str(label)).mkdir(exist_ok=True)
        Image.fromarray((image * LEVELS).clip(0, 255).astype('uint8')).save(folder / str(label) / f'{i}.png')
    return folder


def test_a_file_that_goes_bad_is_named_and_the_fixed_run_resumes(run_python, folder, tmp_path):
    command = ['train.py', '--model=mlp', f'--dataset=files/{folder}', '--image_size=8', '--steps=800', '--noexport',
               '--batch_size=64', '--checkpoint_every=50', '--steps_per_call=10', '--log_every=50']
    workdir = tmp_path / 'run'
    process = start([sys.executable, *command, f'--workdir={workdir}'], tmp_path / 'log')
    wait_for_checkpoint(workdir, 50, [process])
    files = sorted(folder.glob('*/*.png'))
    sound = [file.read_bytes() for file in files]
    for file in files:               # whichever of them training reads next
        file.write_bytes(b'\x89PNG\r\n\x1a\n and no more')
    assert process.wait(120) == 1
    said = (tmp_path / 'log').read_text()
    assert 'cannot be read as an image any more; fix or remove it' in said.splitlines()[-1]
    assert 'Traceback' not in said
    for file, data in zip(files, sound):
        file.write_bytes(data)
    done = run_python(*command, f'--workdir={workdir}')
    assert 'resuming at step' in done.stdout
    run_python(*command, f'--workdir={tmp_path / "whole"}')
    assert results(workdir)['weights_sha256'] == results(tmp_path / 'whole')['weights_sha256']


def test_a_damaged_checkpoint_is_named_and_the_one_before_goes_on(run_python, tmp_path):
    """One bit; tests/training/test_checkpoint.py has other damages."""
    command = ['train.py', '--model=mlp', '--steps=60', '--checkpoint_every=10', '--steps_per_call=5', '--noexport']
    run_python(*command, f'--workdir={tmp_path / "whole"}')
    workdir = tmp_path / 'run'
    assert interrupted(workdir, signal.SIGKILL, 30, command)[0] == -signal.SIGKILL
    newest = sorted((workdir / 'checkpoints').glob('step-*.safetensors'))[-1]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    done = run_python(*command, f'--workdir={workdir}')
    assert f'checkpoint {newest.name} is broken' in done.stdout and 'resuming at step' in done.stdout
    assert results(workdir)['weights_sha256'] == results(tmp_path / 'whole')['weights_sha256']


def test_a_checkpoint_of_another_seed_is_refused_by_name(run_python, tmp_path):
    command = ['train.py', '--model=mlp', '--steps=20', '--checkpoint_every=10', '--noexport']
    for seed in (0, 1):
        run_python(*command, f'--seed={seed}', f'--workdir={tmp_path / str(seed)}')
    file, = (tmp_path / '1' / 'checkpoints').glob('step-00000020-*')
    foreign = tmp_path / '0' / 'checkpoints' / file.name
    for own in foreign.parent.glob('step-00000020-*'):
        own.unlink()
    foreign.write_bytes(file.read_bytes())
    (tmp_path / '0' / 'results.json').unlink()
    for command in ([*command, '--seed=0'], ['evaluate.py']):
        done = run_python(*command, f'--workdir={tmp_path / "0"}', check=False)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
        assert f'checkpoint {foreign} is of another recipe (seed: 1 there, 0 here)' in done.stderr
    foreign.unlink()
    assert 'resuming at step 10' in run_python('train.py', '--model=mlp', '--steps=20', '--checkpoint_every=10',
                                               '--noexport', f'--workdir={tmp_path / "0"}').stdout


def test_numbers_that_explode_end_the_run_with_a_report(run_python, tmp_path):
    done = run_python('train.py', '--model=mlp', '--dataset=diabetes', '--optimizer=sgd', '--learning_rate=1e30',
                      f'--workdir={tmp_path}', check=False)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert 'had a gradient that is not finite; see' in done.stderr
    report = json.loads((tmp_path / 'not_finite.json').read_text())
    assert report['loss'] == 'nan' and len(report['examples']) == report['batch_size'] == 64
    assert set(report['gradient_norms'].values()) == {'nan'}


def test_a_rate_at_which_nothing_is_learned_is_no_success(run_python, tmp_path):
    done = run_python('train.py', '--model=mlp', '--learning_rate=1e30', '--steps=20', '--log_every=5',
                      f'--workdir={tmp_path}', check=False)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert 'not finite; see' in done.stderr or 'is not finite, so no checkpoint' in done.stderr
    assert 'loss 0.0000' not in done.stdout and not (tmp_path / 'results.json').exists()
