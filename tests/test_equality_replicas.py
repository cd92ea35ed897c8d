"""E1, E3 and E7: the number of replicas, of workers and of micro-batches, and XLA, change nothing but rounding.

    pytest -m slow tests/test_equality_replicas.py

Computed in the same micro-batches, runs end with the same bits on any devices: their difference must be 0. Otherwise
float32 sums are in another order, which moves the last of 24 bits (6e-8) of each gradient; training then multiplies
that, so the tolerance is 1e-4 of a tensor's largest element after these few steps. Each process (tests/distributed.py)
has checked that all of its replicas' copies of every variable are equal bit for bit.
"""

import numpy as np
import pytest

from training.step import INITIAL_LOSS_SCALE

MAIN = 'adamw, clip, decay, ema, dropout, regulariser, uneven weights'
EXACT = '8 micro-batches'
SPOILT = ('a row that is not finite', 'batch norm, a row that is not finite', 'float16, a row that is not finite')
CASES = (MAIN, EXACT, *SPOILT[1:])        # on all devices; the rest on 1 and 2 only
FAST = (MAIN, 'xla', SPOILT[1])
MANY = ['2', '8', '2x1', '2x2']
WIDE = '2x2'                               # for the documents' models, which take a minute each to trace
# packed: several pairs per row, beam search. words: a text classifier.
MODELS = ['mlp', 'cnn', 'lstm', 'resnet', 'detection', 'segmentation', 'transformer', 'packed', 'regression', 'words',
          'hidden words', 'questions']
TOLERANCE = 1e-4
LOW_PRECISION = 3e-2                       # bfloat16 has 8 bits


@pytest.fixture(scope='module')
def run(run_python, tmp_path_factory):
    """run(what, devices, *names) -> {name: {key: array}} of the first worker, each process once."""
    done = {}

    def run(what, devices, *names):
        if (what, devices, names) not in done:
            folder = tmp_path_factory.mktemp('runs')
            run_python('-m', 'tests.distributed', what, devices, folder, *names)
            workers = [dict(np.load(file)) for file in sorted(folder.glob('*.npz'))]
            assert len(workers) == (int(devices.split('x')[0]) if 'x' in devices else 1)
            for other in workers[1:]:
                for key, value in other.items():
                    np.testing.assert_array_equal(value, workers[0][key], err_msg=key)
            results = done[what, devices, names] = {}
            for key, value in workers[0].items():
                name, _, key = key.partition('|')
                results.setdefault(name, {})[key] = value
        return done[what, devices, names]
    return run


def difference(one, many):
    """The largest of `differences`."""
    return max(differences(one, many))


def differences(one, many):
    """In units of a tensor's largest element, those of the state and the metrics of a run."""
    keys = [key for key in one if key in many]
    assert any(key.startswith('state/model/') for key in keys) and {k for k in one if 'state' in k} <= set(keys)
    return [np.abs(one[key].astype('float64') - many[key]).max() / max(np.abs(one[key]).max(), 1e-3) for key in keys]


def assert_skipped(results, times=1):
    assert all(np.isfinite(value).all() for value in results.values())
    assert results['value/skipped'] * 6 == pytest.approx(times)
    assert results['state/optimizer/optimizer/iteration'] == 6 - times and results['value/loss'] > 0


def test_two_replicas_equal_one(run):
    one, two = run('cases', '1', *FAST), run('cases', '2', MAIN, FAST[-1])
    for case in (MAIN, FAST[-1]):
        assert difference(one[case], two[case]) < TOLERANCE
    assert difference(one[MAIN], one['xla']) < TOLERANCE
    assert_skipped(one[FAST[-1]])
    assert_skipped(two[FAST[-1]])


def test_a_batch_norm_is_one_all_reduce_forward_and_one_backward(run):
    results = run('cases', '1x2', 'batch norm')['batch norm']       # whose all-reduces are operations of the graph
    assert results['collectives'] == 1 + 2 * 2                      # the step's, and those of two layers


@pytest.mark.slow
def test_a_resnet_has_two_collectives_per_batch_norm(run):
    results = run('cases', '1x2', 'resnet')['resnet']
    assert results['collectives'] == 1 + 2 * 21


@pytest.mark.slow
@pytest.mark.parametrize('case', ['xla', 'batch norm', 'resnet', 'sgd', SPOILT[0], 'bfloat16'])
def test_each_case_on_two_replicas(run, measured, case):
    worst = difference(run('cases', '1')[case], run('cases', '2')[case])
    measured('E1', case, '2', worst)
    assert worst < (LOW_PRECISION if case == 'bfloat16' else TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize('devices', MANY)
def test_the_step_on_any_devices(run, measured, devices):
    one, many = run('cases', '1'), run('cases', devices) if devices == '2' else run('cases', devices, *CASES)
    for case in CASES:
        worst = difference(one[case], many[case])
        measured('E1', case, devices, worst)
        assert worst <= (0 if case in (EXACT, SPOILT[2]) else TOLERANCE), case


@pytest.mark.slow
@pytest.mark.parametrize('devices', ['1', *MANY])
def test_a_bad_row_on_one_replica_skips_the_step_on_all(run, devices):
    results = run('cases', devices) if devices in '12' else run('cases', devices, *CASES)
    assert_skipped(results[SPOILT[1]])
    # The spoilt step, and those whose loss scale was still too large: each of them has halved it, and none of 6 steps
    # doubles it. The count of skipped steps and the optimizer's own count of updates must agree with that.
    overflown = results[SPOILT[2]]
    halved = np.log2(INITIAL_LOSS_SCALE / overflown['state/loss_scale/scale'])
    assert 1 <= halved <= 3
    assert_skipped(overflown, times=halved)


@pytest.mark.slow
@pytest.mark.parametrize('devices', ['1', *MANY])
def test_answers_come_back_once_each_and_in_order(run, devices):
    one, many = (run('cases', d) if d in '12' else run('cases', d, *CASES) for d in ('1', devices))
    answers = {key: value for key, value in one[EXACT].items() if key.startswith('evaluation/answers/')}
    assert {value.dtype.name for value in answers.values()} == {'int32', 'float32', 'bool', 'int64', 'float64'}
    integers = answers['evaluation/answers/integers']
    assert len(integers) == len(np.unique(integers, axis=0)) == 43
    for key, value in answers.items():
        np.testing.assert_array_equal(many[EXACT][key], value, err_msg=key)
    assert one[EXACT]['evaluation/table'].shape == (4, 4)
    np.testing.assert_array_equal(many[EXACT]['evaluation/table'], one[EXACT]['evaluation/table'])


@pytest.mark.slow
@pytest.mark.parametrize('devices', ['2x1', '2x2'])
def test_a_step_is_one_all_reduce(run, devices):
    results = run('cases', devices, *CASES)
    for case in (MAIN, EXACT, SPOILT[2]):
        assert results[case]['collectives'] == 1
    assert results[SPOILT[1]]['collectives'] == 1 + 2 * 2


@pytest.mark.slow
def test_every_model_on_several_workers_of_several_devices(run, measured):
    one, many = run('models', '1', EXACT, 'whole', 'xla'), run('models', WIDE, EXACT)
    for model in MODELS:
        worst = difference(one[f'{model}, {EXACT}'], many[f'{model}, {EXACT}'])
        measured('E1', f'{model}, {EXACT}', WIDE, worst)
        assert worst == 0, model


@pytest.mark.slow
def test_every_model_counts_every_example(run):
    for results in (run('models', '1', EXACT, 'whole', 'xla'), run('models', WIDE, EXACT)):
        for model in MODELS:
            assert results[f'{model}, {EXACT}']['value/count'] == 67


@pytest.mark.slow
@pytest.mark.parametrize('model', MODELS)
def test_micro_batches_and_xla_equal_the_whole_batch(run, measured, model):
    one = run('models', '1', EXACT, 'whole', 'xla')
    whole = one[f'{model}, whole']
    for setting in (EXACT, 'xla'):
        if f'{model}, {setting}' in one:
            worst = difference(whole, one[f'{model}, {setting}'])
            measured('E7', f'{model}, {setting}', '1', worst)
            # Max-pooling turns a last bit into another choice now and then.
            assert worst < (1e-3 if model == 'cnn' else TOLERANCE)
