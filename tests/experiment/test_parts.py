"""What happens where rooms meet: broken files, missing checkpoints, models that do not fit their data."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

import recipes
from data.pipeline import training_slices
from errors import RunError, UserError
from experiment import parts, trained
from experiment.workdir import Workdir
from settings import Regression, Vectors
from tests.opened import opened
from training.checkpoint import Checkpoints
from training.state import TrainState, inference_arrays

_, MLP_DIGITS = recipes.load('mlp_digits')


@pytest.fixture
def images(tmp_path):
    for kind in ('cats', 'dogs'):
        (tmp_path / 'images' / kind).mkdir(parents=True)
        for i in range(20):
            Image.fromarray(np.full([9, 8, 3], i, np.uint8)).save(tmp_path / 'images' / kind / f'{i}.png')
    return tmp_path / 'images'


def test_a_file_that_breaks_after_the_start_is_named(images, monkeypatch):
    monkeypatch.setattr('data.rows.LIMIT', 0)               # or it would have been read before
    dataset, task = opened(f'files/{images}', image_size=8)
    batches = iter(training_slices(task.rows(dataset.train), task.batch, batch_size=8, seed=0)())
    next(batches)
    for file in images.glob('*/*.png'):
        file.write_bytes(file.read_bytes()[:40])            # the signature is still there
    with pytest.raises(RunError, match=r'\d+.png cannot be read as an image any more; fix or remove it'):
        with parts.data_errors(dataset):
            for _ in range(50):
                next(batches)


def test_a_model_that_does_not_fit_its_data_is_one_line():
    with pytest.raises(UserError, match='`task` classification needs text .text., label .label.. Received: dataset='):
        parts.open_data(MLP_DIGITS.replace(dataset='number_words'))
    recipe = dataclasses.replace(recipes.load('lstm_digits')[1].resolved('cpu'), data=Vectors('diabetes'),
                                 task=Regression())
    with pytest.raises(UserError, match='`input_shape` must be .steps, features. or .*Received: input_shape=.10,.'):
        parts.build_model(recipe, parts.open_data(recipe)[1])


def saved_run(folder, recipe, average=None):
    """A run's folder with one checkpoint of an untrained model, and with an average of its weights if wanted."""
    workdir, recipe = Workdir(folder), recipe.resolved('cpu')
    workdir.claim(recipe)
    model = parts.build_model(recipe, parts.open_data(recipe)[1])
    arrays = TrainState(model).arrays()
    if average is not None:
        arrays |= {name.replace('model/', 'average/', 1): np.full_like(v, average) for name, v in arrays.items()}
    checkpoints = Checkpoints(workdir.checkpoints)
    checkpoints.save(7, arrays, {})
    checkpoints.wait()
    return model


def test_a_run_is_loaded_from_its_folder_alone(tmp_path):
    model = saved_run(tmp_path / 'run', MLP_DIGITS.replace(seed=3))
    recipe, dataset, _, loaded, step = trained.load(tmp_path / 'run')
    assert (recipe.training.seed, dataset.name, step) == (3, 'digits', 7)
    for ours, theirs in zip(model.get_weights(), loaded.get_weights()):
        np.testing.assert_array_equal(ours, theirs)


def test_averaged_weights_are_what_is_loaded(tmp_path):
    saved_run(tmp_path / 'run', MLP_DIGITS, average=0.5)
    assert all((w == 0.5).all() for w in trained.load(tmp_path / 'run')[3].get_weights())
    saved = {'model/a': 1, 'model/b': 2, 'average/a': 3, 'optimizer/x': 4}
    assert inference_arrays(saved) == {'model/a': 3, 'model/b': 2}


@pytest.mark.parametrize('which', ['best', '8', 'last', '²', '-7', '9' * 5000])
def test_a_checkpoint_that_is_not_there(tmp_path, which):
    saved_run(tmp_path / 'run', MLP_DIGITS)
    with pytest.raises(UserError, match=f"`checkpoint` must be newest, best or a step of .*7.*checkpoint='{which}'"):
        trained.load(tmp_path / 'run', which)


def test_a_run_that_goes_on_keeps_its_precision_on_other_hardware(tmp_path):
    automatic = MLP_DIGITS
    assert [automatic.resolved(kind).training.precision for kind in ('cpu', 'gpu', 'tpu')] == [
        'float32', 'float32', 'bfloat16']
    workdir = Workdir(tmp_path / 'run')
    assert workdir.resumed_recipe(automatic) == automatic
    workdir.claim(automatic.resolved('tpu'))
    workdir.check(automatic)
    assert workdir.resumed_recipe(automatic).resolved('cpu').training.precision == 'bfloat16'
    with pytest.raises(UserError, match="precision: 'bfloat16' there, 'float32' here"):
        workdir.check(automatic.replace(precision='float32'))


def test_the_seed_alone_decides_the_first_weights():
    recipe = MLP_DIGITS.resolved('cpu')
    task = parts.open_data(recipe)[1]
    a, b, c = (parts.build_model(r, task).get_weights() for r in (recipe, recipe, recipe.replace(seed=1)))
    assert all((x == y).all() for x, y in zip(a, b)) and (a[0] != c[0]).any()
