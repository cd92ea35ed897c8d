"""E1 and E7 of the step: replicas, accumulation and XLA change nothing but the order of float32 sums.

Each process prints the state after a run (tests/distributed.py), having checked that all its replicas' copies of every
variable are equal bit for bit.
"""

import json

import numpy as np
import pytest

# Six AdamW updates at a rate of 0.05 divide by square roots of gradients: sums in another order move the seventh digit
# of a gradient, and the fifth of a weight.
TOLERANCE = {'rtol': 1e-3, 'atol': 1e-4}
LOW_PRECISION = {'rtol': 3e-2, 'atol': 3e-3}     # bfloat16 has 8 bits


@pytest.fixture(scope='module')
def runs(run_python):
    """{replicas: {case: {'values', 'state'}}}"""
    def run(replicas):
        done = run_python('-m', 'tests.distributed', 'steps', replicas)
        return json.loads(done.stdout.strip().splitlines()[-1])
    return {replicas: run(replicas) for replicas in (1, 2, 4)}


def assert_close(a, b, tolerance):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], **tolerance, err_msg=name)


@pytest.mark.parametrize('replicas', [2, 4])
@pytest.mark.parametrize('case', [
    'adamw, clip, decay, ema, dropout, regulariser, uneven weights', 'accumulate', 'xla', 'batch norm', 'sgd',
    'a row that is not finite', 'batch norm, a row that is not finite', 'bfloat16'])
def test_n_replicas_equal_one(runs, replicas, case):
    one, many = runs[1][case], runs[replicas][case]
    tolerance = LOW_PRECISION if case == 'bfloat16' else TOLERANCE
    assert_close(one['state'], many['state'], tolerance)
    for name in ('loss', 'mae', 'grad_norm', 'skipped'):
        np.testing.assert_allclose(one['values'][name], many['values'][name], **tolerance, err_msg=name)


@pytest.mark.parametrize('case', ['accumulate', 'xla'])
@pytest.mark.parametrize('replicas', [1, 2])
def test_accumulation_and_xla_equal_the_plain_step(runs, case, replicas):
    plain = runs[replicas]['adamw, clip, decay, ema, dropout, regulariser, uneven weights']
    assert_close(plain['state'], runs[replicas][case]['state'], TOLERANCE)


@pytest.mark.parametrize('replicas', [1, 2, 4])
@pytest.mark.parametrize('case', ['a row that is not finite', 'batch norm, a row that is not finite',
                                  'float16, a row that is not finite'])
def test_a_bad_row_on_any_replica_skips_the_step_on_all(runs, replicas, case):
    run = runs[replicas][case]
    assert run['values']['skipped'] > 0
    assert np.isfinite(run['values']['loss']) and run['values']['loss'] > 0
    for name, values in run['state'].items():
        assert np.isfinite(values).all(), name
    updates = run['state']['optimizer/optimizer/iteration'][0]
    assert updates == 6 - round(6 * run['values']['skipped'])


def test_the_first_skipped_step_is_the_bad_one(runs):
    for replicas in (1, 2, 4):
        assert runs[replicas]['a row that is not finite']['values']['skipped'] == pytest.approx(1 / 6)
