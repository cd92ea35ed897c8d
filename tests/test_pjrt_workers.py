"""Several processes joined by jax: how they meet, by flags and by what the environment says, and how they end together.

Whole runs of train.py, and for what all runs share PROGRAM, whose processes join, talk all the time, and start in a
second. TPU slices are feigned: GKE's variables, a metadata server of ours, and CPU devices in the place of chips.

    pytest -m slow tests/test_pjrt_workers.py
"""

import http.server
import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from errors import UserError
from settings import Options
from strategies import hosts
from strategies.workers import free_addresses
from tests.conftest import ROOT, clean_environment
from tests.test_workers_train import start, start_by_slurm, wait_for_checkpoint
from training.checkpoint import Checkpoints

pytestmark = pytest.mark.skipif(importlib.util.find_spec('jax') is None, reason='needs pip install -e ".[tpu]"')
MLP = ['--model=mlp', '--steps=200', '--augment=shift', '--accumulate=4', '--ema=0.9', '--eval_every=100', '--noexport',
       '--steps_per_call=5', '--checkpoint_every=50', '--log_every=50', '--strategy=cpu', '--runtime=pjrt']
BOUND = 60       # seconds in which the workers that are left must have ended
LOST = f'error: {hosts.LOST}'
# argv: {constant of hosts: value}, place as strategies.hosts.join takes it; then what to do after 5 exchanges.
PROGRAM = '''
import json, os, signal, sys, time
import cli
from errors import RunError, UserError
from strategies import hosts
vars(hosts).update(json.loads(sys.argv[1]))
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
hosts.import_quiet_jax()
import jax
import numpy as np
from jax.experimental import multihost_utils
jax.config.update('jax_platforms', 'cpu')

def main():
    print('started', flush=True)
    hosts.join(jax, json.loads(sys.argv[2]))
    index, count = jax.process_index(), 0
    while count < 5 or sys.argv[3] != 'return':
        try:
            total = int(np.sum(multihost_utils.process_allgather(np.ones(1))))
        except Exception as error:
            assert hosts.is_loss(error), error
            hosts.claim_last_words()
            raise RunError(hosts.LOST)
        count += 1
        if count == 5:
            print('process', index, 'of', total, flush=True)
            exec(sys.argv[3].removeprefix('return'))

cli._end(main)
'''


class Processes:
    """Some processes of PROGRAM, whose output goes to files."""

    def __init__(self, folder, places, then='pass', constants=None, environments=None):
        self.folder, self.all = folder, []
        for i, place in enumerate(places):
            command = [sys.executable, '-c', PROGRAM, json.dumps(constants or {}), json.dumps(place), then]
            environment = clean_environment(**(environments[i] if environments else {}))
            with open(folder / f'out{i}', 'w') as out, open(folder / f'err{i}', 'w') as err:
                self.all.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=err))

    def wait_for(self, text, *which):
        deadline = time.monotonic() + 120
        while not all(text in self.out(i) for i in which or range(len(self.all))):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def out(self, i):
        return (self.folder / f'out{i}').read_text()

    def err(self, i):
        return (self.folder / f'err{i}').read_text().splitlines()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.all:
            process.kill()
            process.wait()


def places(count):
    return [(address, count, i) for address in free_addresses(1) for i in range(count)]


def by_flags(count):
    return [[f'--coordinator_address={address}', f'--num_processes={n}', f'--process_id={i}']
            for address, n, i in places(count)]


def results(folder):
    return json.loads((folder / 'results.json').read_text())


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_and_another_number_resumes(run_python, tmp_path):
    """Two processes, of which the second is sent SIGTERM; then four. Two devices that nobody stopped end the same.

    Of the four, only the first sees the folder, and so learns the precision there: the others have it from the first.
    """
    precise = [*MLP, '--precision=bfloat16']
    run_python('train.py', *precise, '--virtual_devices=2', f'--workdir={tmp_path / "whole"}')
    workdir = tmp_path / 'stopped'
    processes = [start([sys.executable, 'train.py', *precise, *flags, f'--workdir={workdir}'], tmp_path / f'log{i}')
                 for i, flags in enumerate(by_flags(2))]
    wait_for_checkpoint(workdir, 50, processes)
    processes[1].send_signal(signal.SIGTERM)
    assert [process.wait(BOUND) for process in processes] == [75, 75]
    logs = [(tmp_path / f'log{i}').read_text().splitlines() for i in range(2)]
    step = max(Checkpoints(workdir / 'checkpoints').steps())
    assert step < 200
    # The second says nothing else: neither what the first says, nor C++ notes on connections.
    assert logs[1] == [logs[0][-1]] == [f'stopped by SIGTERM; saved at step {step}; the same command resumes it']
    assert not any('Gloo' in line for line in logs[0])
    folders = [workdir, *(tmp_path / f'unseen{i}' for i in (1, 2, 3))]
    processes = [start([sys.executable, 'train.py', *MLP, *flags, f'--workdir={folders[i]}'], tmp_path / f'log{i}')
                 for i, flags in enumerate(by_flags(4))]
    assert [process.wait(300) for process in processes] == [0, 0, 0, 0]
    assert [(tmp_path / f'log{i}').read_text() for i in (1, 2, 3)] == ['', '', '']
    assert not any(folder.exists() for folder in folders[1:])
    assert f'resuming at step {step}' in (tmp_path / 'log0').read_text()
    assert results(workdir)['workers'] == results(workdir)['replicas'] == 4
    assert results(workdir)['recipe']['training']['precision'] == 'bfloat16'
    for key in ('weights_sha256', 'eval', 'best'):
        assert results(workdir)[key] == results(tmp_path / 'whole')[key]


@pytest.mark.slow
def test_a_worker_of_slurm_that_hangs_ends_the_chief_with_one_line(tmp_path):
    workdir = tmp_path / 'run'
    processes = start_by_slurm(workdir, [*MLP, '--steps=1000000'])
    try:
        wait_for_checkpoint(workdir, 50, processes)
        processes[1].send_signal(signal.SIGSTOP)
        assert processes[0].wait(BOUND) == 1
        said = (tmp_path / 'log0').read_text()
        assert said.splitlines()[-1] == LOST and said.count('error: ') == 1 and 'Traceback' not in said
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_the_launcher_says_which_worker_was_lost(tmp_path):
    command = ['train.py', *MLP, '--steps=1000000', '--num_workers=2', '--virtual_devices=2',
               f'--workdir={tmp_path / "run"}']
    with open(tmp_path / 'out', 'w') as out, open(tmp_path / 'err', 'w') as err:
        launcher = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=clean_environment(), stdout=out,
                                    stderr=err)
    try:
        wait_for_checkpoint(tmp_path / 'run', 50, [launcher])
        os.kill(worker_of(launcher, 1), signal.SIGKILL)
        assert launcher.wait(BOUND) == 1
    finally:
        launcher.kill()
        launcher.wait()
    *others, last = sorted((tmp_path / 'err').read_text().splitlines())
    assert last == ('error: worker 1 was killed by SIGKILL; the other workers were stopped. The same command resumes '
                    'from the newest checkpoint')
    # Between two of Gloo's messages its sockets miss nothing: then it is the silence that tells, not an error.
    assert others in ([f'[worker 0] {LOST} (JaxRuntimeError)'], [f'[worker 0] {LOST}'])
    lines = (tmp_path / 'out').read_text().splitlines()
    assert lines[0] == '[worker 0] recipe    mlp_digits' and not any('[worker 1]' in line for line in lines)


def worker_of(launcher, index):
    """The process id of a worker, which TF_CONFIG in its environment tells from the others."""
    for pid in pathlib.Path(f'/proc/{launcher.pid}/task/{launcher.pid}/children').read_text().split():
        lines = pathlib.Path(f'/proc/{pid}/environ').read_text().split('\0')
        variables = dict(line.split('=', 1) for line in lines if line)
        if json.loads(variables['TF_CONFIG'])['task']['index'] == index:
            return int(pid)


@pytest.mark.slow
@pytest.mark.parametrize('victim, number', [(0, signal.SIGKILL), (2, signal.SIGKILL), (0, signal.SIGSTOP)],
                         ids=['first killed', 'last killed', 'first hangs'])
def test_those_that_are_left_end_with_one_line(tmp_path, victim, number):
    with Processes(tmp_path, places(3), constants={'HEARTBEAT': 6}) as processes:
        processes.wait_for('of 3')
        processes.all[victim].send_signal(number)
        for i in {0, 1, 2} - {victim}:
            assert processes.all[i].wait(BOUND) == 1
            assert processes.err(i) == [LOST]


@pytest.mark.slow
def test_one_that_never_comes_ends_those_that_wait(tmp_path):
    with Processes(tmp_path, [places(2)[0], places(2)[1]], constants={'ARRIVAL': 3}) as processes:      # two clusters
        for i in range(2):
            assert processes.all[i].wait(BOUND) == 1
            assert processes.err(i) == ['error: not all workers came within 3 s; start them together, with the same '
                                        'addresses']


@pytest.mark.slow
def test_one_that_waits_for_others_answers_signals_at_once(tmp_path):
    with Processes(tmp_path, places(2)[1:]) as processes:
        processes.wait_for('started')
        time.sleep(1)
        processes.all[0].send_signal(signal.SIGTERM)
        assert processes.all[0].wait(BOUND) == 75
        assert 'stopped by SIGTERM' in processes.out(0)


@pytest.mark.slow
def test_an_address_that_is_taken_is_one_line(tmp_path):
    with http.server.HTTPServer(('', 0), http.server.BaseHTTPRequestHandler) as server:
        with Processes(tmp_path, [(f'127.0.0.1:{server.server_port}', 2, 0)]) as processes:
            assert processes.all[0].wait(BOUND) == 1
            assert len(processes.err(0)) == 1 and 'error: the first worker cannot listen at 127' in processes.err(0)[0]


@pytest.mark.slow
@pytest.mark.parametrize('then, codes, lines', [
    ('return', [0, 0], [[], []]),
    ('if index: raise UserError("of my own")', [1, 2], [[LOST], ['error: of my own']]),
    ('if index: 1 / 0', [1, 1], [[LOST], None]),
    # All are there, so the abort has another cause.
    ('if index: os.abort()', [1, 1], [[LOST], ['error: jax aborted this process; with TF_CPP_MIN_LOG_LEVEL=0 in the '
                                               'environment it says why']]),
    # Python still answers signals, as before it joined.
    ('os.kill(os.getpid(), signal.SIGTERM)', [75, 75], [[], []]),
])
def test_how_one_ends_is_heard_by_the_other_at_once(tmp_path, then, codes, lines):
    with Processes(tmp_path, places(2), then, {'HEARTBEAT': 1000}) as processes:      # not by its silence
        assert [process.wait(BOUND) for process in processes.all] == codes
        assert processes.err(0) == lines[0]
        if lines[1] is None:
            assert processes.err(1)[-1] == 'ZeroDivisionError: division by zero'
        else:
            assert processes.err(1) == lines[1]


@pytest.fixture
def metadata_server():
    """Google's metadata server. Yields ({attribute: value}, its address)."""
    attributes = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            value = attributes.get(self.path.rpartition('/attributes/')[2])
            self.send_response(404 if value is None or self.headers['Metadata-Flavor'] != 'Google' else 200)
            self.end_headers()
            self.wfile.write((value or '').encode())

        def log_message(self, *_):
            pass
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield attributes, f'127.0.0.1:{server.server_port}'
        server.shutdown()


@pytest.mark.slow
def test_hosts_of_a_slice_on_gke_are_joined_by_jax(tmp_path, metadata_server):
    attributes, address = metadata_server
    attributes['tpu-env'] = ''
    port = free_addresses(1)[0].rpartition(':')[2]
    environments = [{'TPU_WORKER_HOSTNAMES': 'localhost,localhost', 'TPU_WORKER_ID': str(i), 'GCE_METADATA_IP': address,
                     'JAX_FORCE_TPU_INIT': '1', 'JAX_COORDINATOR_PORT': port} for i in range(2)]
    with Processes(tmp_path, [(), ()], 'return', environments=environments) as processes:
        assert [process.wait(BOUND) for process in processes.all] == [0, 0]
        for i in range(2):
            assert f'process {i} of 2' in processes.out(i)


@pytest.mark.parametrize('environment, attributes, count', [
    ({}, {}, 1),                                                              # no Google, or no slice
    ({'TPU_WORKER_HOSTNAMES': 'localhost'}, None, 1),                         # GKE, one host; nobody is asked
    ({'TPU_WORKER_HOSTNAMES': ''}, None, 1),
    ({'TPU_WORKER_HOSTNAMES': 'a.b,c.b,d.b,e.b'}, None, 4),
    ({'TPU_WORKER_HOSTNAMES': 'a,b', 'MEGASCALE_NUM_SLICES': '3'}, None, 6),
    ({'TPU_PROCESS_ADDRESSES': 'a:1,b:1', 'TPU_WORKER_HOSTNAMES': 'a'}, None, 2),
    ({'TPU_SKIP_MDS_QUERY': '1'}, None, 1),
    ({}, {'worker-network-endpoints': 'unknown:unknown:10.0.0.2'}, 1),
    ({}, {'worker-network-endpoints': 'x:y:10.0.0.2,x:y:10.0.0.3'}, 2),
    ({}, {'worker-network-endpoints': 'a,b', 'tpu-env': "ZONE: 'z'\nMEGASCALE_NUM_SLICES: '2'\n"}, 4),
])
def test_the_hosts_of_a_slice_are_counted(monkeypatch, metadata_server, environment, attributes, count):
    for name in [name for name in os.environ if name.startswith(('TPU_', 'MEGASCALE_'))]:
        monkeypatch.delenv(name)
    for name, value in {'GCE_METADATA_IP': metadata_server[1] if attributes is not None else '127.0.0.1:1',
                        **environment}.items():
        monkeypatch.setenv(name, value)
    metadata_server[0].update(attributes or {})
    assert hosts.of_tpu_slice.__wrapped__() == count


ADDRESS, ALL = {'coordinator_address': 'a:1'}, {'coordinator_address': 'a:1', 'num_processes': 2, 'process_id': 0}


@pytest.mark.parametrize('options, message', [
    (ADDRESS, '`coordinator_address` is one of three, coordinator_address, num_processes and process_id, that'),
    (ADDRESS | {'num_processes': 2}, '`coordinator_address` is one of three'),
    ({'num_processes': 2}, '`num_processes` is one of three'),
    ({'process_id': 0}, '`process_id` is one of three'),
    (ALL | {'coordinator_address': 'http://a:1'}, '`coordinator_address` must be host:port'),
    (ALL | {'coordinator_address': 'a'}, '`coordinator_address` must be host:port'),
    (ALL | {'process_id': 2}, r'`process_id` must be below num_processes \(2\). Received: process_id=2'),
    (ALL | {'runtime': 'tensorflow'}, '`coordinator_address` is of runtime pjrt'),
    (ALL | {'num_workers': 2}, '`num_workers` starts the processes of a cluster'),
])
def test_flags_that_contradict_each_other_are_one_line(options, message):
    with pytest.raises(UserError, match=message):
        Options(**options)
    assert Options().process is None and Options(**ALL).process == ('a:1', 2, 0)


@pytest.mark.parametrize('environment, flags, message', [
    ({'TF_CONFIG': '{"cluster": {"worker": ["a:1"]}}'}, ['--runtime=pjrt'],
     '`coordinator_address` names a cluster, but so does TF_CONFIG. Received: '),
    ({}, [], '`coordinator_address` needs runtime pjrt; runtime tensorflow finds workers by TF_CONFIG. Received: ')])
def test_ways_that_contradict_each_other_are_one_line(run_python, tmp_path, environment, flags, message):
    done = run_python('train.py', '--model=mlp', '--strategy=cpu', *flags, *by_flags(2)[0],
                      f'--workdir={tmp_path / "run"}', check=False, env=environment)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / 'run').exists()
