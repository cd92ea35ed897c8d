"""E1 and E7 of the step: replicas, accumulation and XLA change nothing but the order of float32 sums.

Each process prints the state after a run (tests/distributed.py), having checked that all its replicas' copies of every
variable are equal bit for bit. The fast tier runs a few cases on 1 and 2 replicas, the slow tier all on 1, 2 and 4.
"""

import json

import numpy as np
import pytest

# Six AdamW updates at a rate of 0.05 divide by square roots of gradients: sums in another order move the seventh digit
# of a gradient, and the fifth of a weight.
TOLERANCE = {'rtol': 1e-3, 'atol': 1e-4}
LOW_PRECISION = {'rtol': 3e-2, 'atol': 3e-3}     # bfloat16 has 8 bits
MAIN = 'adamw, clip, decay, ema, dropout, regulariser, uneven weights'
FAST = (MAIN, 'xla', 'batch norm, a row that is not finite')
SPOILT = ('a row that is not finite', 'batch norm, a row that is not finite', 'float16, a row that is not finite')


@pytest.fixture(scope='module')
def run(run_python):
    """run(replicas, *cases) -> {case: {'values', 'state'}}, each once."""
    done = {}

    def run(replicas, *cases):
        if (replicas, cases) not in done:
            output = run_python('-m', 'tests.distributed', 'steps', replicas, *cases).stdout
            done[replicas, cases] = json.loads(output.strip().splitlines()[-1])
        return done[replicas, cases]
    return run


def assert_equal_runs(one, many, tolerance):
    assert one['state'].keys() == many['state'].keys()
    for name in one['state']:
        np.testing.assert_allclose(one['state'][name], many['state'][name], **tolerance, err_msg=name)
    for name in ('loss', 'mae', 'grad_norm', 'skipped'):
        np.testing.assert_allclose(one['values'][name], many['values'][name], **tolerance, err_msg=name)


def assert_skipped(run):
    assert run['values']['skipped'] > 0 and np.isfinite(run['values']['loss']) and run['values']['loss'] > 0
    assert all(np.isfinite(values).all() for values in run['state'].values())
    assert run['state']['optimizer/optimizer/iteration'][0] == 6 - round(6 * run['values']['skipped'])


def test_two_replicas_equal_one(run):
    one, two = run(1, *FAST), run(2, MAIN, FAST[-1])
    for case in (MAIN, FAST[-1]):
        assert_equal_runs(one[case], two[case], TOLERANCE)
    assert_equal_runs(one[MAIN], one['xla'], TOLERANCE)
    for replicas in (one, two):
        assert_skipped(replicas[FAST[-1]])
        assert replicas[FAST[-1]]['values']['skipped'] == pytest.approx(1 / 6)      # the spoilt step and no other


@pytest.mark.slow
@pytest.mark.parametrize('replicas', [2, 4])
@pytest.mark.parametrize('case', [MAIN, 'accumulate', 'xla', 'batch norm', 'sgd', *SPOILT[:2], 'bfloat16'])
def test_n_replicas_equal_one(run, replicas, case):
    assert_equal_runs(run(1)[case], run(replicas)[case], LOW_PRECISION if case == 'bfloat16' else TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize('replicas', [1, 2, 4])
def test_accumulation_and_xla_equal_the_plain_step(run, replicas):
    for case in ('accumulate', 'xla'):
        assert_equal_runs(run(replicas)[MAIN], run(replicas)[case], TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize('replicas', [1, 2, 4])
@pytest.mark.parametrize('case', SPOILT)
def test_a_bad_row_on_any_replica_skips_the_step_on_all(run, replicas, case):
    assert_skipped(run(replicas)[case])
