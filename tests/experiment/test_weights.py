"""A run that starts from the weights of another (--weights): by name, strictly, once, and the same on any devices."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import recipes
from errors import UserError
from experiment import weights
from experiment.workdir import Workdir
from models.pretrained import match
from tests.test_front_doors import interrupted, results
from training.checkpoint import Checkpoints

SHAPES = {'hidden/kernel': (4, 3), 'hidden/bias': (3,), 'logits/kernel': (3, 2), 'logits/bias': (2,)}
MLP = recipes.load('mlp_digits')[1]


def arrays(**changed):
    return {path: np.full(shape, 1, np.float32) for path, shape in (SHAPES | changed).items()}


def test_all_of_a_model_is_matched_but_a_head_of_another_shape():
    found, of_the_seed = match(SHAPES, arrays())
    assert set(found) == set(SHAPES) and of_the_seed == []
    found, of_the_seed = match(SHAPES, arrays(**{'logits/kernel': (3, 5), 'logits/bias': (5,)}))
    assert set(found) == {'hidden/kernel', 'hidden/bias'} and of_the_seed == ['logits/bias', 'logits/kernel']
    without_head = {path: value for path, value in arrays().items() if not path.startswith('logits')}
    assert match(SHAPES, without_head)[1] == ['logits/bias', 'logits/kernel']


@pytest.mark.parametrize('changed, message', [
    ({'hidden/kernel': (4, 9)}, r'hidden/kernel is \[4, 9\] there, \[4, 3\] here'),
    ({'hidden_2/kernel': (3, 3)}, r'hidden_2/kernel is \[3, 3\] there, nothing here')])
def test_anything_else_that_does_not_fit_is_named(changed, message):
    with pytest.raises(ValueError, match=message):
        match(SHAPES, arrays(**changed))
    with pytest.raises(ValueError, match='hidden/bias is nothing there'):
        match(SHAPES, {path: value for path, value in arrays().items() if path != 'hidden/bias'})


def begun(folder, recipe=MLP, tokenizer=None):
    """A run's folder with a checkpoint."""
    workdir = Workdir(folder)
    workdir.claim(recipe, tokenizer)
    checkpoints = Checkpoints(workdir.checkpoints, recipe=recipe.to_json())
    checkpoints.save(7, {'model/a': np.ones(1)}, {})
    checkpoints.wait()
    return workdir


def test_a_folder_that_is_no_such_run_is_refused_before_anything_is_made(tmp_path):
    fresh = Workdir(tmp_path / 'new')
    Workdir(tmp_path / 'unused').claim(MLP)
    for folder in ('nothing', 'unused', 'wei\0rd'):
        with pytest.raises(UserError, match='`weights` must be the folder of a run of train.py that has a checkpoint'):
            weights.check(MLP.replace(weights=str(tmp_path / folder)), fresh)
    begun(tmp_path / 'lstm', recipes.load('lstm_digits')[1])
    with pytest.raises(UserError, match='`weights` must be a run of the model mlp; .* is one of lstm'):
        weights.check(MLP.replace(weights=str(tmp_path / 'lstm')), fresh)
    assert not fresh.path.exists()
    weights.check(MLP.replace(weights='gone'), begun(tmp_path / 'own'))      # a resumed run does not read it


def test_a_text_run_takes_the_tokenizer_of_the_weights(tmp_path):
    recipe = recipes.load('lstm_sst2')[1]
    begun(tmp_path / 'a', recipe, {'words.txt': b'theirs'})
    ours, fresh = recipe.replace(weights=str(tmp_path / 'a'), dataset='trec'), Workdir(tmp_path / 'b')
    assert weights.tokenizer(ours, fresh) == {'words.txt': b'theirs'}
    with pytest.raises(UserError, match='`vocabulary_size` must be 10000, as in the run .* Received: .*=900'):
        weights.tokenizer(ours.replace(vocabulary_size=900), fresh)
    own = begun(tmp_path / 'own', recipe, {'words.txt': b'own'})
    assert weights.tokenizer(ours, own) == {'words.txt': b'own'}


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    """A data set of three classes of grey images: bars at three places."""
    folder, rng = tmp_path_factory.mktemp('data'), np.random.default_rng(0)
    for split, size in (('train', 24), ('validation', 8), ('test', 8)):
        for i, name in enumerate(('left', 'middle', 'right')):
            (folder / 'shapes' / split / name).mkdir(parents=True)
            for n in range(size):
                pixels = rng.integers(0, 100, (28, 28), np.uint8)
                pixels[:, 8 * i:8 * i + 8] += 100
                Image.fromarray(pixels).save(folder / 'shapes' / split / name / f'{n}.png')
    return folder


@pytest.mark.slow
def test_a_run_starts_from_the_weights_of_another(run_python, shapes, tmp_path):
    first = ('train.py', '--model=mlp', '--steps=30', '--noexport', '--ema=0.9', f'--workdir={tmp_path / "first"}')
    run_python(*first)
    command = ['train.py', '--model=mlp', '--dataset=shapes', f'--data_dir={shapes}', '--channels=1', '--batch_size=24',
               '--accumulate=2', '--steps=400', '--eval_every=100', '--checkpoint_every=20', '--ema=0.9',
               f'--weights={tmp_path / "first"}']
    whole = run_python(*command, f'--workdir={tmp_path / "whole"}')
    head = next(line for line in whole.stdout.splitlines() if line.startswith('weights'))
    assert 'step 30' in head and 'mlp/logits/bias, mlp/logits/kernel of the seed' in head and 'hidden' not in head
    run_python(*command, f'--workdir={tmp_path / "two"}', '--num_workers=2', '--noexport')
    interrupted(tmp_path / 'again', 9, 40, command)
    shutil.rmtree(tmp_path / 'first')
    resumed = run_python(*command, f'--workdir={tmp_path / "again"}')      # the folder is not read again
    assert 'resuming at step' in resumed.stdout and '\nweights ' not in resumed.stdout
    run_python(*command[:-1], f'--workdir={tmp_path / "seed"}', '--noexport')
    hashes = {name: results(tmp_path / name)['weights_sha256'] for name in ('whole', 'two', 'again', 'seed')}
    assert hashes['whole'] == hashes['two'] == hashes['again'] != hashes['seed']
    kept = {Checkpoints(tmp_path / run / 'checkpoints').newest()[1].get('weights') for run in ('whole', 'two', 'again')}
    assert len(kept) == 1 and None not in kept
    assert json.loads((tmp_path / 'whole' / 'recipe.json').read_text())['model']['weights'] == str(tmp_path / 'first')


@pytest.mark.slow
def test_weights_of_another_size_are_one_line_and_leave_no_folder(run_python, tmp_path):
    run_python('train.py', '--model=lstm', '--steps=2', '--noexport', f'--workdir={tmp_path / "small"}')
    done = run_python('train.py', '--model=lstm', '--steps=2', '--units=60', f'--weights={tmp_path / "small"}',
                      f'--workdir={tmp_path / "large"}', check=False)
    assert done.returncode == 2 and 'error: `weights` must fit the model: lstm/' in done.stderr
    assert 'Received: weights=' in done.stderr
    assert not (tmp_path / 'large').exists()


@pytest.mark.slow
def test_layers_that_start_from_the_data_start_alike_on_any_devices_and_once(run_python, tmp_path):
    command = ['train.py', '--model=airbench', '--dataset=digits', '--width=2', '--batch_size=16', '--warmup_steps=1',
               '--augment=shift', '--channels=1', '--image_size=8', '--steps=300', '--checkpoint_every=20',
               '--noexport']
    whole = run_python(*command, f'--workdir={tmp_path / "whole"}')
    assert '\nweights   whitening/bias, whitening/kernel from the 16 images of the first batch\n' in whole.stdout
    for name, more in (('replicas', '--virtual_devices=2'), ('workers', '--num_workers=2')):
        run_python(*command, more, f'--workdir={tmp_path / name}', '--steps=2')
    interrupted(tmp_path / 'again', 9, 40, command)
    resumed = run_python(*command, f'--workdir={tmp_path / "again"}')
    assert 'resuming at step' in resumed.stdout and '\nweights ' not in resumed.stdout
    run_python(*command, f'--workdir={tmp_path / "tuned"}', '--steps=2', '--seed=1', f'--weights={tmp_path / "whole"}')
    run_python(*command, f'--workdir={tmp_path / "other"}', '--steps=2', '--seed=1')
    ends = {run: Checkpoints(tmp_path / run / 'checkpoints').newest()[0]
            for run in ('whole', 'replicas', 'workers', 'again', 'tuned', 'other')}
    kernels = {run: arrays['model/whitening/kernel'] for run, arrays in ends.items()}
    assert kernels['whole'].shape == (2, 2, 1, 8)
    for run, kernel in kernels.items():
        assert np.array_equal(kernel, kernels['whole']) == (run != 'other'), run
    # A second worker with other filters would have had other gradients.
    for name, value in ends['workers'].items():
        np.testing.assert_allclose(value, ends['replicas'][name], atol=1e-5 * max(np.abs(value).max(), 1), err_msg=name)
    assert results(tmp_path / 'again')['weights_sha256'] == results(tmp_path / 'whole')['weights_sha256']
