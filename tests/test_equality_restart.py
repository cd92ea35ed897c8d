"""E2 as benchmarks/chaos.py shows it: a few kills here, and the report of many that is stored."""

import copy
import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.chaos import COMMON, RESULTS, SETTINGS, differences, outcome
from benchmarks.chaos_victim import PLACES, ROOT, UNKNOWN, classify, py_spy

KILLS = 3


@pytest.fixture(scope='module')
def report(run_python, tmp_path_factory):
    """chaos.json of a few kills of a run that moves between devices."""
    sleeper = subprocess.Popen([sys.executable, '-c', 'print(flush=True); input()'], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    with sleeper:
        sleeper.stdout.readline()
        read = subprocess.run([py_spy(), 'dump', '--nonblocking', '--pid', str(sleeper.pid)], capture_output=True)
        sleeper.kill()
    if read.returncode:
        pytest.skip('py-spy may not read other processes on this machine')
    folder = tmp_path_factory.mktemp('chaos')
    run_python('-m', 'benchmarks.chaos', f'--kills={KILLS}', '--settings=moving', f'--results={folder}',
               timeout=1800)
    return json.loads((folder / 'chaos.json').read_text())


def runs(report):
    return [run for setting in report['settings'].values() for run in setting['runs']]


def kills(report):
    return [start['kill'] for run in runs(report) for start in run['starts'] if start['kill']]


@pytest.mark.slow
def test_a_killed_run_ends_where_one_does_that_nobody_killed(report):
    assert report['totals']['runs that differed'] == 0 and all(run['differences'] == [] for run in runs(report))
    assert all(run['starts'][-1]['exit_code'] == 0 for run in runs(report))
    assert report['totals']['kills'] == len(kills(report)) == KILLS


@pytest.mark.slow
def test_the_kills_happened_where_the_report_says(report):
    for kill in kills(report):
        assert kill['exit_code'] == (1 if kill['target'].startswith('worker') else -9)
        assert kill['fell_in'] in PLACES and kill['aimed_at'] in ('random', kill['fell_in'])
    assert {'random', 'checkpoint write'} <= {kill['aimed_at'] for kill in kills(report)}


@pytest.mark.slow
def test_every_start_goes_on_where_the_files_allow(report):
    check_starts(report)


def check_starts(report):
    for run in runs(report):
        assert run['starts'][0]['said'].startswith('a new run of ')
        for before, start in zip(run['starts'], run['starts'][1:]):
            kill, said = before['kill'], start['said']
            # The place is read just before the kill: on a busy machine the run may have gone a bit further.
            assert said.startswith(('resuming at step ', 'a new run of ')) or (
                said == 'nothing to do' and kill['fell_in'] in ('export', 'results'))
            if kill['damage']:
                assert start['damage_reported'] or said == 'nothing to do'
            elif kill['newest_checkpoint'] is not None and said != 'nothing to do':
                # At least there: the chief may have written one more when another process of the run was killed.
                assert int(said.split()[3]) >= kill['newest_checkpoint']


@pytest.mark.slow
def test_runs_of_two_seeds_are_told_apart(run_python, tmp_path):
    for seed in (0, 1):
        run_python(*COMMON, *SETTINGS['mlp'], '--steps=20', '--noexport', f'--seed={seed}',
                   f'--workdir={tmp_path / str(seed)}')
    one, two = outcome(tmp_path / '0'), outcome(tmp_path / '1')
    assert differences(one, one) == []
    found = '\n'.join(differences(one, two))
    for part in ('weights_sha256: ', 'eval: ', 'best: ', 'best_sha256: ', "record of (5, 'train')",
                 "record of (20, 'validation')"):
        assert part in found
    assert one['weights_sha256'] in found and two['weights_sha256'] in found      # both values are shown


OUTCOME = {'weights_sha256': 'a', 'eval': {'loss': 1.}, 'best': None, 'best_sha256': 'b',
           'records': [{'step': 5, 'loss': 0.3}, {'step': 5, 'split': 'validation', 'loss': 0.4}]}


@pytest.mark.parametrize('change', [
    lambda o: o['records'][1].update(loss=float(np.nextafter(0.4, 1))), lambda o: o['records'].pop(),
    lambda o: o['records'].append(o['records'][0]), lambda o: o['eval'].update(loss=1.0000000000000002),
    lambda o: o.update(best_sha256='c')], ids=['last bit', 'missing', 'twice', 'evaluation', 'best checkpoint'])
def test_the_smallest_difference_is_found(change):
    other = copy.deepcopy(OUTCOME)
    assert differences(OUTCOME, other) == []
    change(other)
    assert len(differences(OUTCOME, other)) == 1


def stack(*functions, first='False'):
    return {'frames': [{'filename': str(ROOT / file), 'name': name,
                        'locals': [{'name': 'first', 'repr': first}] if name == 'train' else None}
                       for file, name in functions]}


LOOP = ('training/loop.py', 'train')


@pytest.mark.parametrize('threads, place', [
    ([stack(('train.py', 'run'))], 'start'),
    ([stack(LOOP, first='True')], 'start'),
    ([stack(LOOP)], 'step'),
    ([stack(('training/evaluation.py', 'Evaluator.__call__'), LOOP)], 'evaluation'),
    ([stack(LOOP), stack(('training/files.py', 'write_atomically'),
                         ('training/checkpoint.py', 'Checkpoints._write'))], 'checkpoint write'),
    ([stack(('training/files.py', 'write_atomically'), ('experiment/workdir.py', 'Workdir.claim'))], 'start'),
    ([stack(('experiment/export.py', 'export_run'))], 'export'),
    ([stack(('training/files.py', 'write_atomically'), ('experiment/workdir.py', 'Workdir.finish'))], 'results')])
def test_stacks_say_where_a_run_is(threads, place):
    assert classify(threads) == place


def test_the_stored_report_shows_e2():
    stored = json.loads((RESULTS / 'chaos.json').read_text())
    totals = stored['totals']
    assert totals['kills'] == len(kills(stored)) >= 25 and totals['kills left over'] == 0
    assert totals['runs that differed'] == 0 and not any(run['differences'] for run in runs(stored))
    assert stored['settings'].keys() == SETTINGS.keys()
    assert all(totals['by place'][place] for place in PLACES) and totals['by place'][UNKNOWN] == 0
    for place in ('checkpoint write', 'evaluation', 'export'):
        assert sum(kill['aimed_at'] == kill['fell_in'] == place for kill in kills(stored)) >= 3
    targets = {kill['target'] for kill in kills({'settings': {'workers': stored['settings']['workers']}})}
    assert 'launcher' in targets and targets & {'worker 0', 'worker 1'}
    check_starts(stored)
