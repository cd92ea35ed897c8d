"""Several workers as a user meets them: real processes, the launch files, signals, deaths. The chief writes, alone."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

import recipes
import train
from errors import UserError
from settings import Options
from strategies.workers import free_addresses
from tests.conftest import ROOT, clean_environment
from tests.test_front_doors import records

pytestmark = pytest.mark.slow
# In micro-batches of one shape, so that the bits do not depend on the devices; augmented, averaged, with a best.
MLP = ['--model=mlp', '--steps=200', '--augment=shift', '--accumulate=4', '--ema=0.9', '--eval_every=100', '--noexport',
       '--steps_per_call=5', '--checkpoint_every=50']
BOUND = 60       # seconds in which the workers that are left must have ended


def results(workdir):
    return json.loads((workdir / 'results.json').read_text())


def start(command, log, **environment):
    """A process that writes to a file: two workers would block on full pipes that nobody reads."""
    path = os.path.dirname(sys.executable) + os.pathsep + os.environ['PATH']      # the launch files call `python`
    with open(log, 'w') as file:
        return subprocess.Popen([str(part) for part in command], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT,
                                env=clean_environment(PATH=path, **environment))


def start_by_tf_config(workdir, flags):
    addresses = ' '.join(free_addresses(2))
    return [start(['strategies/launch/tf_config.sh', *flags, f'--workdir={workdir}'], workdir.parent / f'log{i}',
                  WORKERS=addresses, INDEX=str(i)) for i in range(2)]


def start_by_slurm(workdir, flags):
    """What srun tells two tasks on one node. The ports follow from the job's number."""
    job = next(n for n in range(1000) if _free(20000 + n % 100 * 100))
    return [start([sys.executable, 'train.py', '--strategy=multiworker', *flags, f'--workdir={workdir}'],
                  workdir.parent / f'log{i}', SLURM_JOB_ID=str(job), SLURM_PROCID=str(i), SLURM_STEP_NUM_TASKS='2',
                  SLURM_STEP_NODELIST='127.0.0.1', SLURM_STEP_TASKS_PER_NODE='2') for i in range(2)]


def _free(port):
    with socket.socket() as s, socket.socket() as t:
        return s.connect_ex(('127.0.0.1', port)) and t.connect_ex(('127.0.0.1', port + 1))


def wait_for_checkpoint(workdir, step, processes):
    """Returns when there is a checkpoint of `step` or later; the run must not end before."""
    deadline = time.monotonic() + 300
    while not any(int(f.name[5:13]) >= step for f in (workdir / 'checkpoints').glob('step-*.safetensors')):
        assert all(process.poll() is None for process in processes) and time.monotonic() < deadline
        time.sleep(0.05)


def test_a_signal_to_one_worker_stops_all_and_any_devices_resume(run_python, tmp_path):
    run_python('train.py', *MLP, f'--workdir={tmp_path / "whole"}')
    workdir = tmp_path / 'stopped'
    processes = start_by_tf_config(workdir, MLP)
    wait_for_checkpoint(workdir, 50, processes)
    processes[1].send_signal(signal.SIGTERM)
    assert [process.wait(BOUND) for process in processes] == [75, 75]
    for i in range(2):
        assert 'stopped by SIGTERM; saved at step' in (tmp_path / f'log{i}').read_text()
    # TensorFlow's names of event files end with the process, a number and .v2.
    assert len({file.name.split('.')[-3] for file in (workdir / 'tensorboard').rglob('*.v2')}) == 1
    stop = run_python('train.py', *MLP, '--virtual_devices=4', '--max_minutes=0.005', f'--workdir={workdir}',
                      check=False)
    assert stop.returncode == 75 and 'stopped by max_minutes; saved at step' in stop.stdout
    done = run_python('train.py', *MLP, f'--workdir={workdir}')
    assert 'resuming at step' in done.stdout
    for key in ('weights_sha256', 'eval', 'best'):
        assert results(workdir)[key] == results(tmp_path / 'whole')[key]


def test_a_signal_to_one_worker_during_evaluations_stops_all(run_python, tmp_path):
    """Nearly all of this run's time is evaluation; tests/training/test_stops.py aims at one."""
    flags = [*MLP, '--eval_every=2', '--batch_size=8']
    run_python('train.py', *flags, f'--workdir={tmp_path / "whole"}')
    workdir = tmp_path / 'stopped'
    processes = start_by_tf_config(workdir, flags)
    wait_for_checkpoint(workdir, 50, processes)
    processes[1].send_signal(signal.SIGTERM)
    assert [process.wait(BOUND) for process in processes] == [75, 75]
    done = run_python('train.py', *flags, f'--workdir={workdir}')
    assert 'resuming at step' in done.stdout
    for key in ('weights_sha256', 'eval', 'best'):
        assert results(workdir)[key] == results(tmp_path / 'whole')[key]
    assert records(workdir) == records(tmp_path / 'whole')


@pytest.mark.parametrize('victim, number', [(0, signal.SIGKILL), (1, signal.SIGKILL), (1, signal.SIGSTOP)],
                         ids=['chief killed', 'worker killed', 'worker hangs'])
def test_a_lost_worker_ends_the_others_with_one_line(tmp_path, victim, number):
    workdir = tmp_path / 'run'
    processes = start_by_slurm(workdir, ['--model=mlp', '--steps=1000000', '--checkpoint_every=50', '--log_every=50'])
    try:
        wait_for_checkpoint(workdir, 50, processes)
        processes[victim].send_signal(number)
        assert processes[1 - victim].wait(BOUND) == 1
        said = (tmp_path / f'log{1 - victim}').read_text()
        assert said.splitlines()[-1].startswith('error: another worker was lost') and 'Traceback' not in said
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_what_num_workers_refuses(run_python):
    for flags, environment, message in (
            (['--strategy=cpu'], {}, '`num_workers` needs strategy multiworker. Received: num_workers=2, strategy=cpu'),
            ([], {'TF_CONFIG': '{}'}, '`num_workers` starts a cluster of its own, but TF_CONFIG names one'),
            (['--num_workers=-1'], {}, '`num_workers` must be at least 0 and at most 1,024')):
        done = run_python('train.py', '--model=mlp', '--num_workers=2', *flags, env=environment, check=False)
        assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_mistake_of_all_workers_is_said_once(run_python, tmp_path):
    done = run_python('train.py', '--model=mlp', '--num_workers=2', '--batch_size=13', f'--workdir={tmp_path / "run"}',
                      check=False)
    assert done.returncode == 2 and done.stderr.count('error: `batch_size` is the global batch') == 1
    assert not (tmp_path / 'run').exists()


def test_a_finished_run_starts_no_workers_and_python_is_told_where_they_are(run_python, tmp_path):
    flags = ['train.py', '--model=mlp', '--steps=5', '--noexport', f'--workdir={tmp_path / "run"}']
    run_python(*flags)
    done = run_python(*flags, '--num_workers=2')
    assert done.stdout.count('nothing to do') == 1 and '[worker' not in done.stdout
    with pytest.raises(UserError, match='`num_workers` starts processes of the command line'):
        train.run(recipes.load('mlp_digits')[1], Options(num_workers=2, workdir=str(tmp_path / 'other')))
