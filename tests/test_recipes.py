"""Recipes and options: found, typed, checked, saved. No TensorFlow."""

import dataclasses

import pytest

import recipes
from errors import UserError
from recipes import Options, Recipe
from workdir import Workdir, default_workdir


def test_every_recipe_names_its_command():
    for name, recipe in recipes.RECIPES.items():
        module = getattr(recipes, name)
        chosen = recipes.find(model=recipe.model, dataset=recipe.dataset)
        assert chosen == (name, recipe)
        command = f'python train.py --model={recipe.model}'
        command += '' if recipes.DEFAULT[recipe.model] == name else f' --dataset={recipe.dataset}'
        assert command in module.__doc__


def test_model_alone_takes_its_default_recipe_and_another_dataset_keeps_it():
    assert recipes.find(model='cnn') == ('cnn_digits', recipes.RECIPES['cnn_digits'])
    assert recipes.find(model='cnn', dataset='cifar10')[0] == 'cnn_digits'
    assert recipes.find(recipe='lstm_digits')[0] == 'lstm_digits'


def test_recipe_survives_its_file():
    recipe = recipes.RECIPES['transformer_number_words'].replace(seed=7, epochs=2.5)
    assert (recipe.steps, recipe.epochs) == (0, 2.5)
    assert Recipe.from_json(recipe.to_json()) == recipe


@pytest.mark.parametrize('change, message', [
    ({'batch_size': 0}, '`batch_size` must be at least 1. Received: batch_size=0'),
    ({'batch_size': 2.5}, '`batch_size` must be of type int. Received: batch_size=2.5'),
    ({'learning_rate': -1.}, '`learning_rate` must be positive. Received: learning_rate=-1.0'),
    ({'steps': 3, 'epochs': 1.}, '`epochs` and `steps` exclude each other'),
    ({'steps': 0, 'epochs': 0.}, '`steps` or `epochs` must say how long'),
    ({'schedule': 'linear'}, '`schedule` must be one of constant, cosine, inverse_sqrt. Received: schedule=\'linear\''),
    ({'precision': 'fp16'}, '`precision` must be one of auto, float32, bfloat16, float16'),
    ({'dropout': 1.}, r'`dropout` must be in \[0, 1\)'),
    ({'ema': 1.}, r'`ema` must be in \[0, 1\). Received: ema=1.0'),
    ({'nesterov': 1}, '`nesterov` must be of type bool'),
    ({'seed': -1}, '`seed` must not be negative'),
    ({'channels': 2}, '`channels` must be 0, 1 or 3'),
])
def test_a_wrong_field_is_one_line(change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(recipes.RECIPES['cnn_digits'], **change)


@pytest.mark.parametrize('change, message', [
    ({'jit': 'yes'}, '`jit` must be one of auto, on, off. Received: jit=\'yes\''),
    ({'log_every': 0}, '`log_every` must be at least 1'),
    ({'checkpoint_every': -1}, '`checkpoint_every` must not be negative'),
])
def test_a_wrong_option_is_one_line(change, message):
    with pytest.raises(UserError, match=message):
        Options(**change)


def test_unknown_names_list_the_known_and_the_closest():
    with pytest.raises(UserError, match='`model` must be one of mlp, cnn, .* Did you mean transformer'):
        recipes.find(model='transfomer')
    with pytest.raises(UserError, match='`--model` or `--recipe` must say what to train. Models: mlp, cnn'):
        recipes.find()


def test_a_workdir_keeps_to_its_recipe(tmp_path):
    recipe, workdir = recipes.RECIPES['mlp_digits'], Workdir(tmp_path / 'run')
    workdir.claim(recipe)
    workdir.claim(recipe)
    before = (tmp_path / 'run' / 'recipe.json').read_bytes()
    with pytest.raises(UserError, match='belongs to another recipe .seed: 0 there, 1 here.. Choose another --workdir'):
        workdir.claim(recipe.replace(seed=1))
    assert (tmp_path / 'run' / 'recipe.json').read_bytes() == before


def test_a_workdir_that_is_no_run(tmp_path):
    with pytest.raises(UserError, match='`workdir` must hold a run, made by train.py; .* is missing'):
        Workdir(tmp_path).recipe()
    (tmp_path / 'recipe.json').write_text('{')
    with pytest.raises(UserError, match='is not a recipe'):
        Workdir(tmp_path).recipe()
    with pytest.raises(UserError, match='`workdir` must be a folder'):
        Workdir(tmp_path / 'recipe.json').check(recipes.RECIPES['mlp_digits'])


def test_overrides_name_a_workdir_of_their_own():
    assert default_workdir('cnn_digits', {}) == 'runs/cnn_digits'
    changed = {'seed': 1, 'dataset': 'files/a b'}
    assert default_workdir('cnn_digits', changed) == 'runs/cnn_digits,dataset=files_a b,seed=1'
