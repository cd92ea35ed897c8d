"""A run's folder: one run at a time, whatever became of the run before."""

import errno
import os
import signal
import socket
import subprocess
import sys

import pytest

from errors import RunError, UserError
from experiment.workdir import Workdir
from tests.conftest import ROOT
from tests.test_workers_train import start, wait_for_checkpoint

HOLD = '''
import sys
from experiment.workdir import Workdir
workdir = Workdir(sys.argv[1])
workdir.lock()
print(flush=True)
input()
'''


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of tmp_path / 'run'."""
    process = subprocess.Popen([sys.executable, '-c', HOLD, tmp_path / 'run'], cwd=ROOT, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    with process:
        process.stdout.readline()
        yield process
        process.kill()


def test_a_folder_that_cannot_be_made_is_one_line_that_names_the_flag(run_python, tmp_path):
    (tmp_path / 'file').write_text('')
    for folder, reason in ((tmp_path / 'file' / 'run', 'Not a directory'), ('/proc/run', 'No such file or directory')):
        done = run_python('train.py', '--model=mlp', '--steps=2', f'--workdir={folder}', check=False)
        assert done.returncode == 2 and done.stderr.endswith(
            f'error: `workdir` must be a folder that can be made and written to: {reason}. '
            f"Received: workdir='{folder}'\n")


def test_a_tilde_is_the_users_home(monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path))
    assert Workdir('~/run').path == tmp_path / 'run'


def test_a_folder_in_a_bucket_is_one_line_in_python_too():
    for path in ('gs://bucket/run', 's3://bucket/run'):
        with pytest.raises(UserError, match=f"must be a path on this machine; .*Received: '{path}'"):
            Workdir(path)


def test_a_second_run_is_refused_by_a_line_that_names_the_first(holder, tmp_path):
    with pytest.raises(RunError) as error:
        Workdir(tmp_path / 'run').lock()
    assert str(error.value) == (f'another run is using {tmp_path / "run"}: process {holder.pid} on host '
                                f'{socket.gethostname()}. Wait for it, or choose another --workdir')


def test_the_lock_of_a_killed_run_does_not_count(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    workdir = Workdir(tmp_path / 'run')
    workdir.lock()
    assert (tmp_path / 'run' / 'lock').read_text() == f'{os.getpid()} {socket.gethostname()}\n'
    with pytest.raises(RunError, match=f'process {os.getpid()} on host'):
        Workdir(tmp_path / 'run').lock()
    workdir.unlock()
    other = Workdir(tmp_path / 'run')
    other.lock()
    other.unlock()


def test_a_file_system_without_locks_is_one_line(tmp_path, monkeypatch):
    def refuse(*_):      # no file system of a test machine does
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    monkeypatch.setattr('experiment.workdir.fcntl.flock', refuse)
    with pytest.raises(RunError, match='lock cannot be locked .No locks available.: `workdir` must be on'):
        Workdir(tmp_path).lock()


@pytest.mark.slow
def test_two_runs_of_one_command(run_python, tmp_path):
    command = ['train.py', '--model=mlp', '--steps=100000', '--checkpoint_every=50', f'--workdir={tmp_path / "run"}']
    first = start([sys.executable, *command], tmp_path / 'log')
    wait_for_checkpoint(tmp_path / 'run', 50, [first])
    second = run_python(*command, check=False)
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == 75
    assert second.returncode == 1
    assert second.stderr.startswith(f'error: another run is using {tmp_path / "run"}: process {first.pid} on host ')
    assert len(second.stderr.splitlines()) == 1 and second.stdout == ''
