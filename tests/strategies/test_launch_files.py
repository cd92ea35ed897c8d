"""The files that start a run on a cluster: they agree with themselves, and the shell in them is really run."""

import json
import os
import re
import subprocess

import pytest
import yaml

from errors import FAILED, PREEMPTED, USAGE
from tests.conftest import ROOT, clean_environment

FOLDER = ROOT / 'strategies' / 'launch'
TF_CONFIG, SLURM = FOLDER / 'tf_config.sh', FOLDER / 'slurm.sbatch'
# Programs that come first in PATH. They say how they were called.
PYTHON = 'echo "$TF_CONFIG"; printf "%s\\n" "$@"'
SRUN = 'echo "srun" "$@"; exit $CODE'
SCONTROL = 'echo "scontrol" "$@"'


@pytest.fixture
def shell(tmp_path):
    """shell(arguments, **environment) -> CompletedProcess, in the project's root."""
    for name, program in (('python', PYTHON), ('srun', SRUN), ('scontrol', SCONTROL)):
        (tmp_path / name).write_text(f'#!/bin/bash\n{program}\n')
        (tmp_path / name).chmod(0o755)

    def run(*arguments, **environment):
        path = f'{tmp_path}:{os.environ["PATH"]}'
        return subprocess.run(list(map(str, arguments)), cwd=ROOT, text=True, capture_output=True,
                              env=clean_environment(PATH=path, **environment))
    return run


@pytest.fixture(scope='module')
def kubernetes():
    """{kind: object}"""
    objects = list(yaml.safe_load_all((FOLDER / 'kubernetes.yaml').read_text()))
    assert [o['kind'] for o in objects] == ['Service', 'PersistentVolumeClaim', 'Job']
    return {o['kind']: o for o in objects}


def started(done):
    """(TF_CONFIG, flags) of the train.py that was started."""
    assert (done.returncode, done.stderr) == (0, '')
    config, program, *arguments = done.stdout.splitlines()
    assert os.path.samefile(ROOT / program, ROOT / 'train.py')
    return json.loads(config), arguments


def assert_one_cluster(configs, addresses):
    for index, config in enumerate(configs):
        assert config == {'cluster': {'worker': addresses}, 'task': {'type': 'worker', 'index': index}}


def test_the_folder_holds_what_is_tested_here():
    assert {f.name for f in FOLDER.iterdir()} == {'tf_config.sh', 'slurm.sbatch', 'kubernetes.yaml'}


@pytest.mark.parametrize('path', [TF_CONFIG, SLURM], ids=lambda path: path.name)
def test_bash_reads_it(path):
    done = subprocess.run(['bash', '-n', path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, '')
    assert path.read_text().startswith('#!/bin/bash\n')


def test_tf_config_gives_each_host_its_place(shell):
    assert os.access(TF_CONFIG, os.X_OK)
    ran = [started(shell(TF_CONFIG, '--model=cnn', '--workdir=/shared/a run', WORKERS='host0:2222 host-1.local:2223',
                         INDEX=str(index))) for index in range(2)]
    assert_one_cluster([config for config, _ in ran], ['host0:2222', 'host-1.local:2223'])
    assert all(flags == ['--strategy=multiworker', '--model=cnn', '--workdir=/shared/a run'] for _, flags in ran)


@pytest.mark.parametrize('environment, message', [
    ({}, '`WORKERS` must list all workers as "host:port host:port ...". Received: nothing'),
    ({'WORKERS': 'host0:2222 host1', 'INDEX': '0'}, '`WORKERS` must be of the form host:port. Received: host1'),
    ({'WORKERS': 'a:1,b:1', 'INDEX': '0'}, '`WORKERS` must be of the form host:port. Received: a:1,b:1'),
    ({'WORKERS': 'a:1 b:1'}, '`INDEX` must be one of 0 to 1, for 2 workers. Received: INDEX='),
    ({'WORKERS': 'a:1 b:1', 'INDEX': '2'}, '`INDEX` must be one of 0 to 1, for 2 workers. Received: INDEX=2'),
    ({'WORKERS': 'a:1 b:1', 'INDEX': '-1'}, '`INDEX` must be one of 0 to 1, for 2 workers. Received: INDEX=-1'),
    ({'WORKERS': 'a:1 b:1', 'INDEX': '01'}, '`INDEX` must be one of 0 to 1, for 2 workers. Received: INDEX=01'),
])
def test_tf_config_says_what_is_wrong(shell, environment, message):
    done = shell(TF_CONFIG, '--model=cnn', **environment)
    assert (done.returncode, done.stdout, done.stderr) == (USAGE, '', f'error: {message}\n')


def sbatch_options():
    lines = re.findall(r'(?m)^#SBATCH --(\S+)$', SLURM.read_text())
    return {name: value for name, _, value in (line.partition('=') for line in lines)}


def test_slurm_asks_for_one_task_on_each_of_two_nodes():
    options = sbatch_options()
    assert (options['nodes'], options['ntasks-per-node']) == ('2', '1')
    number, _, seconds = options['signal'].partition('@')
    assert number == 'TERM'                             # with B: it would stop the script, and not reach the workers
    assert 60 <= int(seconds) < 600                     # time to save, and not much of it lost
    assert 'requeue' in options and options['open-mode'] == 'append'
    # sbatch reads only what stands before the first command.
    head = re.match(r'(#.*\n)*', SLURM.read_text())[0]
    assert head.count('#SBATCH') == SLURM.read_text().count('#SBATCH') == len(options)


@pytest.mark.parametrize('code', [0, FAILED, USAGE, PREEMPTED, 137])
def test_slurm_queues_a_preempted_run_again_and_no_other(shell, code):
    done = shell('bash', SLURM, '--model=cnn', CODE=str(code), SLURM_JOB_ID='7', SLURM_CPUS_PER_TASK='8')
    first, *rest = done.stdout.splitlines()
    assert re.fullmatch('srun .*--kill-on-bad-exit=1 python train.py --strategy=multiworker --model=cnn', first)
    assert rest == (['scontrol requeue 7'] if code == PREEMPTED else [])
    assert (done.returncode, done.stderr) == (code, '')


def test_kubernetes_names_agree(kubernetes):
    service, claim, job = (kubernetes[kind] for kind in ('Service', 'PersistentVolumeClaim', 'Job'))
    pod = job['spec']['template']['spec']
    container = pod['containers'][0]
    assert service['spec']['clusterIP'] == 'None' and service['spec']['publishNotReadyAddresses'] is True
    assert service['spec']['selector'] == {'batch.kubernetes.io/job-name': job['metadata']['name']}
    assert pod['subdomain'] == service['metadata']['name']
    assert [p['port'] for p in service['spec']['ports']] == [p['containerPort'] for p in container['ports']]
    volume, mount = pod['volumes'][0], container['volumeMounts'][0]
    assert volume['persistentVolumeClaim']['claimName'] == claim['metadata']['name']
    assert volume['name'] == mount['name'] and f'--workdir={mount["mountPath"]}/' in container['args'][0]
    assert claim['spec']['accessModes'] == ['ReadWriteMany']


def test_kubernetes_restarts_what_our_exit_codes_ask_for(kubernetes):
    spec = kubernetes['Job']['spec']
    pod = spec['template']['spec']
    assert spec['completionMode'] == 'Indexed' and spec['completions'] == spec['parallelism'] == 2
    assert pod['restartPolicy'] == 'Never'              # the only one that podFailurePolicy goes with
    assert spec['podReplacementPolicy'] == 'Failed'     # likewise
    assert pod['terminationGracePeriodSeconds'] >= 60 and spec['backoffLimit'] >= 2 * spec['completions']
    actions = {}
    for rule in spec['podFailurePolicy']['rules']:
        if 'onExitCodes' in rule:
            assert rule['onExitCodes']['containerName'] == pod['containers'][0]['name']
            assert rule['onExitCodes']['operator'] == 'In'
            actions |= {code: rule['action'] for code in rule['onExitCodes']['values']}
        else:
            actions |= {condition['type']: rule['action'] for condition in rule['onPodConditions']}
    assert actions == {PREEMPTED: 'Ignore', USAGE: 'FailJob', 'DisruptionTarget': 'Ignore'}


def test_kubernetes_gives_each_index_its_place(kubernetes, shell):
    service, job = kubernetes['Service'], kubernetes['Job']
    container = job['spec']['template']['spec']['containers'][0]
    environment = {e['name']: e['value'] for e in container['env']}
    ran = [started(shell(*container['command'], *container['args'], **environment, JOB_COMPLETION_INDEX=str(index)))
           for index in range(job['spec']['completions'])]
    # A pod of an Indexed Job is found at JOB-INDEX.SUBDOMAIN.
    name, domain, port = job['metadata']['name'], service['metadata']['name'], service['spec']['ports'][0]['port']
    assert_one_cluster([config for config, _ in ran],
                       [f'{name}-{i}.{domain}:{port}' for i in range(job['spec']['parallelism'])])
    assert all(flags[:2] == ['--strategy=multiworker', '--model=cnn'] for _, flags in ran)
