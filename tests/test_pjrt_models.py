"""E1 by jax's runtime, for every model and task of the registry: devices and workers change nothing but rounding.

    pytest -m "slow or results" tests/test_pjrt_models.py

Runs of 50 steps (2 of the models over ResNets), dropout on, are compared with TensorFlow's on one device: weights,
averages, slots of the optimizer, totals, the evaluation, and the answers that it was computed from.
tests/pjrt_models.py runs them.
"""

import functools
import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from settings.recipe import SECTIONS
from tests.conftest import ROOT, clean_environment
from tests.test_equality_replicas import (
    EXACT, LOW_PRECISION, SPOILT, TOLERANCE, assert_skipped, difference, differences)

pytestmark = pytest.mark.skipif(importlib.util.find_spec('jax') is None, reason='needs pip install -e ".[tpu]"')
# The slow tier compiles every model for 2 devices and for 2x2; for 1 and 8 the step alone.
PROCESSES = {'slow': (('step:1', '2', 'step:8', 'tensorflow'), ('2x2',)), 'results': (('1', '8', 'tensorflow'),)}
MODELS = [pytest.param(tier, layout, marks=getattr(pytest.mark, tier))
          for tier, layout in (('slow', '2'), ('slow', '2x2'), ('results', '1'), ('results', '8'))]


@pytest.fixture(scope='module')
def ends(tmp_path_factory):
    """ends(tier) -> {layout: {case: {key: array}}}."""
    @functools.cache
    def run(tier):
        folder = tmp_path_factory.mktemp('ends')
        running = [subprocess.Popen([sys.executable, '-m', 'tests.pjrt_models', folder, *layouts], cwd=ROOT, text=True,
                                    env=clean_environment(XLA_FLAGS='--xla_backend_optimization_level=0'),
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                   for layouts in PROCESSES[tier]]
        try:
            for process in running:
                said, _ = process.communicate(timeout=1500)
                assert process.returncode == 0, said
        finally:
            for process in running:
                process.terminate()      # where another one failed
        found = {file.stem: by_case(dict(np.load(file))) for file in folder.glob('*.npz')}
        return found if tier == 'results' else found | {'2x2': one_of(found.pop('2x2.0'), found.pop('2x2.1'))}
    return run


def one_of(first, second):
    """What both workers have found."""
    assert first.keys() == second.keys()
    for case, values in first.items():
        assert values.keys() == second[case].keys()
        for key, value in values.items():
            np.testing.assert_array_equal(second[case][key], value, err_msg=f'{case}: {key}')
    return first


def by_case(arrays):
    """{'case|key': array} -> {case: {key: array}}."""
    found = {}
    for name, value in arrays.items():
        case, _, key = name.partition('|')
        found.setdefault(case, {})[key] = value
    return found


def cases_of(ends, layout):
    """Cases that are models, not parts of the step."""
    return [case for case, found in ends[layout].items() if 'total/loss' in found]


@pytest.mark.slow
def test_every_model_and_every_task_is_there(ends):
    from tests.pjrt_models import CASES, MORE
    assert {model for *_, model, _ in CASES.values()} == set(SECTIONS['model'])
    assert {task for task, *_ in CASES.values()} == set(SECTIONS['task']) and set(MORE) < set(CASES)
    for layout in ('2', '2x2'):
        assert set(cases_of(ends('slow'), layout)) == {case for case in CASES if case not in MORE or layout == '2'}


@pytest.mark.parametrize('tier, layout', MODELS)
def test_each_model_ends_where_it_does_by_tensorflow(ends, measured, tier, layout):
    ends = ends(tier)
    for case in cases_of(ends, layout):
        worst = difference(ends['tensorflow'][case], ends[layout][case])
        measured('E1, PJRT', case, layout, worst)
        assert worst < bound(case), case
        assert np.median(differences(ends['tensorflow'][case], ends[layout][case])) < TOLERANCE / 10, case


def bound(case):
    """Over a ResNet a last bit turns the choice of a maximum now and then, and that moves a few tensors by more."""
    from tests.pjrt_models import CASES, VISION
    return 1e-2 if CASES[case][4] in VISION else TOLERANCE


@pytest.mark.slow
def test_each_model_that_began_by_jax_ends_by_tensorflow(ends, measured):
    ends = ends('slow')
    for case in cases_of(ends, 'tensorflow'):
        worst = difference(ends['tensorflow'][f'{case}, moved'], ends['tensorflow'][case])
        measured('E2, PJRT to TensorFlow', case, '1', worst)
        assert worst < bound(case), case


@pytest.mark.parametrize('tier, layout', MODELS)
def test_each_model_is_evaluated_as_by_tensorflow(ends, tier, layout):
    ends, answered = ends(tier), 0
    for case in cases_of(ends, layout):
        ours, theirs = ends[layout][case], ends['tensorflow'][case]
        assert ours.keys() == theirs.keys() and ours['value/count'] == 11, case
        for key in ours:
            if key.startswith('answer/'):
                answered += 1
                assert len(np.unique(ours[key], axis=0)) > 1
                # Whole numbers are equal; of the others, boxes, the last bits are not.
                tolerance = 1e-4 if ours[key].dtype.kind == 'f' else 0
                np.testing.assert_allclose(ours[key], theirs[key], rtol=tolerance, atol=tolerance, err_msg=case)
    assert answered


@pytest.mark.slow
@pytest.mark.parametrize('layout', ['1', '2', '8', '2x2'])
def test_the_step_is_that_of_tensorflow(ends, measured, layout):
    """Micro-batches have the same bits on any devices; a row that is not finite is skipped on all of them."""
    ends = ends('slow')
    for case in set(ends[layout]) - set(cases_of(ends, layout)):
        worst = difference(ends['tensorflow'][case], ends[layout][case])
        measured('E1, PJRT', case, layout, worst)
        assert worst < (LOW_PRECISION if case == 'bfloat16' else TOLERANCE), case
    assert_skipped(ends[layout][SPOILT[1]])
    one, many = ends['1'][EXACT], ends[layout][EXACT]
    evaluated = [key for key in one if key.startswith('evaluation/')]
    assert len(evaluated) > 5 and one.keys() == many.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], many[key], err_msg=key)
