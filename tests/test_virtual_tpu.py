"""E6, first half: our own step, loop, optimizer and evaluation, traced by the real TPUStrategy over a TPU that is not
there. The TPU wheels get virtual environments of their own, made from the requirements files that users are given.

    pytest -m "slow or results" tests/test_virtual_tpu.py      the slow tier has the newer wheel
"""

import json
import os
import re
import subprocess
import sys
import venv

import pytest

from strategies.preflight import compiler
from tests.conftest import ROOT, clean_environment

MODELS = ['mlp', 'cnn', 'lstm', 'transformer']
LARGE_ANSWERS = ('centernet', 'unet', 'deeplab')
# What the host does around the TPU's program: the iterator, the loop's bookkeeping on scalars, the data's way in, and
# a list of the answers that come out.
HOST = {'AddV2', 'All', 'Any', 'Cast', 'Const', 'Equal', 'FloorDiv', 'FloorMod', 'Greater', 'Identity', 'If',
        'IteratorGetNext', 'LogicalAnd', 'LogicalOr', 'Max', 'Maximum', 'NoOp', 'NotEqual', 'Pack', 'Placeholder',
        'Range', 'ReadVariableOp', 'SelectV2', 'StatelessWhile', 'Sub', 'TPUCompilationResult', 'TPUReplicatedInput',
        'TPUReplicatedOutput', 'TensorListReserve', 'TensorListSetItem', 'TensorListStack', 'While'}
DATA = re.compile('.*Dataset|.*DatasetV2|.*Iterator.*')


def trace(python, out, *cases):
    # A TPU wheel off a TPU waits minutes for a metadata server otherwise.
    done = subprocess.run([python, '-m', 'tests.tpu_trace', out, *cases], cwd=ROOT, capture_output=True, text=True,
                          env=clean_environment(CUDA_VISIBLE_DEVICES='', **compiler.NO_MACHINE))
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())


@pytest.fixture(scope='module')
def here(tmp_path_factory):
    """All cases, under the version that the tests run with."""
    return trace(sys.executable, tmp_path_factory.mktemp('trace') / 'facts.json')['results']


def check(name, facts, replicas=8):
    """What holds for every recipe that a TPU can run."""
    assert facts['precision'] == 'bfloat16'
    # Made on each core, and restored on each: a run that resumes has the same weights everywhere.
    assert len(facts['assigned']) == replicas and set(facts['assigned'].values()) == {2 * facts['variables']}
    assert len(facts['loop']) == 1, 'a step is one program'
    for cluster in (*facts['loop'], *facts['evaluation']):
        assert cluster['replicas'] == replicas
        assert cluster['violations'] == []
        left = {op for op in cluster['on_host'] if op not in HOST and not DATA.fullmatch(op)}
        assert not left, f'{name}: left outside the TPU: {left}'
        # A matrix of counts, and boxes, come out of these evaluations too.
        if name not in LARGE_ANSWERS or cluster in facts['loop']:
            assert cluster['largest_on_host'] <= 4, 'the host computes on totals and flags only'
    step = facts['loop'][0]
    assert len(set(step['all_reduced'])) == len(step['all_reduced']), 'nothing is summed twice'
    assert step['on_host']['IteratorGetNext'] == replicas
    assert step['on_host']['Equal'], '`==` is an operation, as in a run'
    # Each gradient, the sum and the weight of each total, and the flags; BatchNorm adds its sums, forward and backward.
    expected = facts['weights'] + 2 * facts['totals'] + 1
    assert len(step['all_reduced']) - expected == 2 * facts['batch_norms']


@pytest.mark.slow
def test_the_step_is_one_program_with_nothing_left_on_the_host(here):
    assert {*MODELS, '2 hosts', 'flawed'} < set(here)
    for name, result in here.items():
        if name != 'flawed':
            check(name, result, replicas=16 if 'pod' in name else 8)


@pytest.mark.slow
def test_flops_do_not_depend_on_the_strategy(here):
    products = [784 * 256, 256 * 128, 128 * 10]
    assert here['mlp']['flops'] == here['2 hosts']['flops'] == 2 * 128 * (3 * sum(products) - products[0])


@pytest.mark.slow
@pytest.mark.parametrize('fault, reason', [('dynamic', 'has the dynamic shape'), ('string', 'has a string'),
                                           ('host', 'runs on the host')])
def test_what_a_tpu_cannot_run_is_named_with_its_line(here, fault, reason):
    lines = (ROOT / 'tests' / 'flawed.py').read_text().splitlines()
    line = next(i for i, text in enumerate(lines, 1) if f'the {fault} line' in text)
    for cluster in (*here['flawed']['loop'], *here['flawed']['evaluation']):
        first = next(v for v in cluster['violations'] if f'/{fault}' in v['operation'])
        assert reason in first['reason'] and first['source'] == f'{ROOT / "tests" / "flawed.py"}:{line}'


def environment(folder, requirements):
    """The Python of a new virtual environment with these requirements."""
    venv.create(folder, with_pip=True)
    python = folder / 'bin' / 'python'
    subprocess.run([python, '-m', 'pip', 'install', '--quiet', '-r', ROOT / requirements], check=True,
                   env={k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}, capture_output=True)
    return python


@pytest.mark.parametrize('version, requirements', [
    pytest.param('2.20.0', 'requirements-tpu.txt', marks=pytest.mark.slow),
    pytest.param('2.19.1', 'requirements-tpu-2.19.txt', marks=pytest.mark.results)])
def test_every_model_under_the_tpu_wheels(tmp_path, version, requirements):
    python = environment(tmp_path / 'venv', requirements)
    facts = trace(python, tmp_path / 'facts.json', *MODELS, '2 hosts', 'flawed')
    assert facts['tensorflow'] == version
    for name in (*MODELS, '2 hosts'):
        check(name, facts['results'][name])
    assert facts['results']['flawed']['loop'][0]['violations']
