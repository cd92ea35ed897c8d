"""Recipes: found by model, task, dataset, name or path; the commands of the documents; folders that keep to theirs."""

import json
import re
import shlex

import pytest

import recipes
from benchmarks.collect import command
from errors import UserError
from experiment.workdir import Workdir, default_workdir
from settings import Recipe, Regression
from tests.conftest import ROOT
from tests.pages import pages

MLP_DIGITS = recipes.load('mlp_digits')[1]
# What `train.py` or `preflight.py` with these selectors trains, wherever the project names such a command.
COMMANDS = {
    '--model=mlp': 'mlp_digits', '--model=cnn': 'cnn_digits', '--model=lstm': 'lstm_digits',
    '--model=transformer': 'transformer_number_words', '--model=mlp --dataset=diabetes': 'mlp_diabetes',
    '--model=mlp --dataset=fashion_mnist': 'mlp_fashion_mnist',
    '--model=cnn --dataset=fashion_mnist': 'cnn_fashion_mnist',
    '--model=lstm --dataset=fashion_mnist': 'lstm_fashion_mnist',
    '--model=transformer --dataset=gettext/de': 'transformer_gettext_de',
    '--recipe=transformer_gettext_de': 'transformer_gettext_de',
    '--model=lstm --dataset=sst2': 'lstm_sst2', '--model=lstm --dataset=trec': 'lstm_trec',
    '--model=lstm --dataset=imdb': 'lstm_imdb',
    '--model=transformer --task=classification --dataset=sst2': 'transformer_sst2',
    '--model=bert --task=masked_lm': 'bert_mlm_pydoc', '--recipe=bert_sst2': 'bert_sst2',
    '--recipe=bert_squad': 'bert_squad', '--model=bert --dataset=trec': 'bert_trec',
    '--model=resnet': 'resnet_fashion_mnist',
    '--model=resnet --dataset=digits': 'resnet_fashion_mnist',
    '--model=resnet --dataset=files/PATH': 'resnet_fashion_mnist',
    '--model=airbench': 'airbench_cifar10', '--model=centernet --dataset=digit_scenes': 'detector_fashion_scenes',
    '--model=unet --dataset=digit_scenes': 'unet_fashion_scenes',
    '--model=centernet': 'detector_fashion_scenes', '--model=centernet --dataset=bccd': 'detector_bccd',
    '--recipe=detector_bccd --dataset=files/PATH': 'detector_bccd',
    '--recipe=unet_camvid --dataset=files/PATH': 'unet_camvid',
    '--recipe=bert_squad --dataset=files/PATH': 'bert_squad',
    '--model=cnn --dataset=files/PATH': 'cnn_digits', '--recipe=lstm_sst2 --dataset=files/PATH': 'lstm_sst2',
    '--model=transformer --dataset=files/PATH': 'transformer_number_words'}
OWN = '''from settings import CNN, Classification, Images, Recipe, Training
RECIPE = Recipe(data=Images('digits', image_size=32), model=CNN(), task=Classification(),
                training=Training(steps=7))
'''


def commands():
    """{flags of a command} in the documents, the verbs, launchers and notebooks; that of a recipe is tested below."""
    files = [*ROOT.glob('*.py'), *(ROOT / 'strategies').rglob('*.*'), *(ROOT / 'notebooks').glob('*.ipynb')]
    text = '\n'.join([*pages().values(), *(file.read_text(encoding='utf-8') for file in files
                                           if file.suffix not in ('.pyc', '.json'))])
    found = re.findall(r'(?:train|preflight)\.py\]?((?:,? --[\w]+(?:=[\w/:.,]*\w)?)+)', text)
    return {flags.replace(', ', ' ').strip() for flags in found}


def test_every_command_of_the_documents_trains_what_it_always_did():
    seen = set()
    for given in commands():
        flags = dict(flag[2:].partition('=')[::2] for flag in shlex.split(given))
        selectors = {name: flags[name] for name in ('recipe', 'model', 'task', 'dataset') if name in flags}
        chosen = ' '.join(f'--{name}={value}' for name, value in selectors.items())
        if {'recipe', 'model'} & set(selectors) and not chosen.endswith(('mine.py', '=')):
            name, recipe = recipes.find(**selectors)
            assert name == COMMANDS[chosen], given
            recipe.replace(**{k: int(v) for k, v in flags.items() if k in ('steps', 'batch_size')})
            seen.add(chosen)
    assert seen == set(COMMANDS)


@pytest.mark.parametrize('name', recipes.NAMES)
def test_a_recipe_names_its_command(name):
    _, recipe = recipes.load(name)
    own = {'model': recipe.model.kind, 'task': recipe.task.kind, 'dataset': recipe.data.dataset}
    flags = dict(flag[2:].split('=') for flag in command(name).split()[2:])
    selectors = {key: value for key, value in flags.items() if key not in ('data_dir', 'weights')}
    assert 'model' in selectors and selectors.items() <= own.items()
    assert recipes.find(**selectors) == (name, recipe)
    if recipes.DEFAULT[recipe.model.kind] == name:
        assert recipes.find(model=recipe.model.kind) == (name, recipe)


@pytest.mark.parametrize('selectors, name', [
    ({'model': 'cnn'}, 'cnn_digits'), ({'model': 'cnn', 'dataset': 'cifar10'}, 'cnn_digits'),
    ({'recipe': 'lstm_digits'}, 'lstm_digits'), ({'recipe': 'lstm_digits', 'model': 'lstm'}, 'lstm_digits'),
    ({'model': 'mlp', 'task': 'regression'}, 'mlp_diabetes'),
    ({'model': 'mlp', 'task': 'regression', 'dataset': 'digits'}, 'mlp_diabetes'),
    ({'model': 'mlp', 'task': 'classification', 'dataset': 'diabetes'}, 'mlp_digits'),
])
def test_a_recipe_is_found(selectors, name):
    assert recipes.find(**selectors) == recipes.load(name)


def test_a_task_that_no_recipe_of_the_model_has_is_tried_in_that_of_the_dataset():
    name, recipe = recipes.find(model='lstm', task='regression', dataset='digits')
    _, digits = recipes.load('lstm_digits')
    assert name == 'lstm_digits,task=regression' and recipe.task == Regression()
    assert (recipe.data, recipe.model, recipe.training) == (digits.data, digits.model, digits.training)


def test_a_model_without_a_recipe_needs_one(monkeypatch):
    monkeypatch.setattr(recipes, 'DEFAULT', {'mlp': 'mlp_digits'})
    with pytest.raises(UserError, match="`model` must have a recipe in recipes/, or .* Received: model='cnn'"):
        recipes.find(model='cnn')


@pytest.mark.parametrize('selectors, message', [
    ({}, '`--model` or `--recipe` must say what to train. Models: mlp, cnn'),
    ({'model': 'transfomer'}, '`model` must be one of mlp, cnn, .* Did you mean transformer'),
    ({'recipe': 'cnn_digit'}, '`recipe` must be one of .* Did you mean cnn_digits'),
    ({'model': 'lstm', 'task': 'clasification'}, '`task` must be one of .* Did you mean classification'),
    ({'recipe': 'lstm_digits', 'model': 'cnn'}, "`model` of recipe lstm_digits is lstm: another one needs another "
                                                "recipe. Received: model='cnn'"),
    ({'model': 'lstm', 'task': 'regression'}, '`task` of recipe lstm_digits is classification: another one needs'),
])
def test_what_is_not_found_is_one_line(selectors, message):
    with pytest.raises(UserError, match=message):
        recipes.find(**selectors)


def test_a_recipe_for_another_dataset_says_what_it_keeps():
    recipe = recipes.load('lstm_digits')[1]
    line = recipes.inherited('lstm_digits', recipe, {'dataset': 'files/photos', 'steps': 5})
    assert line == 'recipe lstm_digits was made for digits; image_size=16 and augment=shift are kept'
    line = recipes.inherited('lstm_digits', recipe, {'dataset': 'files/photos', 'image_size': 16})
    assert line == 'recipe lstm_digits was made for digits; augment=shift is kept'
    assert recipes.inherited('lstm_digits', recipe, {'dataset': 'x', 'image_size': 16, 'augment': 'none'}) is None
    assert recipes.inherited('lstm_digits', recipe, {'dataset': 'digits'}) is None
    assert recipes.inherited('lstm_digits', recipe, {}) is None


def test_a_file_of_ones_own_is_a_recipe(tmp_path):
    file = tmp_path / 'mine.py'
    file.write_text(OWN)
    name, recipe = recipes.find(recipe=str(file), model='cnn')
    assert (name, recipe.data.image_size, recipe.training.steps) == ('mine', 32, 7)
    assert list(tmp_path.iterdir()) == [file]                # nothing compiled beside it
    with pytest.raises(UserError, match='`model` of recipe mine is cnn'):
        recipes.find(recipe=str(file), model='mlp')


@pytest.mark.parametrize('text, message', [
    (OWN.replace('steps=7', 'steps=7, batch_size=0'), 'mine.py, line [23]: `batch_size` must be at least 1'),
    (OWN.replace('steps=7', 'stebs=7'), r'mine.py, line [23]: TypeError: .*stebs'),
    ('x = 1\nimport nosuch\n', 'mine.py, line 2: ModuleNotFoundError: No module named'),
    ('\n\nRECIPE = (\n', 'mine.py, line 3: SyntaxError: '),
    ('def f():\n    return 1 / 0\n\n\nf()\n', 'mine.py, line 2: ZeroDivisionError: division by zero'),
    ('x = 1\n', r'mine.py must define RECIPE = Recipe\(data=..., .*Received: nothing'),
    ('RECIPE = {}\n', 'mine.py must define RECIPE = .*Received: dict'),
    (b'x = "\xff"\n', 'mine.py, line 1: SyntaxError'), (b'x\0', 'mine.py, line 1: '),
])
def test_a_mistake_in_a_file_of_ones_own_is_one_line(tmp_path, text, message):
    file = tmp_path / 'mine.py'
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message) as error:
        recipes.find(recipe=str(file))
    assert '\n' not in str(error.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    for path in (tmp_path / 'none.py', tmp_path):
        path = path if path.suffix else path / 'folder.py'
        if path.name == 'folder.py':
            path.mkdir()
        with pytest.raises(UserError, match='`recipe` must be a name or a file that can be read .*Received: recipe='):
            recipes.find(recipe=str(path))


def test_a_workdir_keeps_to_its_recipe(tmp_path):
    workdir = Workdir(tmp_path / 'run')
    workdir.claim(MLP_DIGITS)
    workdir.claim(MLP_DIGITS)
    before = (tmp_path / 'run' / 'recipe.json').read_bytes()
    with pytest.raises(UserError, match='belongs to another recipe .seed: 0 there, 1 here.. Choose another --workdir'):
        workdir.claim(MLP_DIGITS.replace(seed=1))
    assert (tmp_path / 'run' / 'recipe.json').read_bytes() == before
    assert Recipe.from_json(before) == MLP_DIGITS


def test_a_workdir_that_is_no_run(tmp_path):
    with pytest.raises(UserError, match='`workdir` must hold a run, made by train.py; .* is missing'):
        Workdir(tmp_path).recipe()
    for content in (b'{', b'\xff', b'{"data": 1}'):
        (tmp_path / 'recipe.json').write_bytes(content)
        with pytest.raises(UserError, match='recipe.json is not a recipe of this version: ') as error:
            Workdir(tmp_path).recipe()
        assert '\n' not in str(error.value)
    with pytest.raises(UserError, match='`workdir` must be a folder'):
        Workdir(tmp_path / 'recipe.json').check(MLP_DIGITS)


def test_a_workdir_of_0_4_0_says_what_to_do(tmp_path):
    (tmp_path / 'recipe.json').write_text(json.dumps({'model': 'mlp', 'task': 'classification', 'steps': 5}))
    for look in (lambda: Workdir(tmp_path).recipe(), lambda: Workdir(tmp_path).check(MLP_DIGITS)):
        with pytest.raises(UserError, match='written by version 0.4.0 or older.* Use that version .* --workdir'):
            look()


def test_overrides_name_a_workdir_of_their_own():
    assert default_workdir('cnn_digits', {}) == 'runs/cnn_digits'
    changed = {'seed': 1, 'dataset': 'files/a b'}
    assert default_workdir('cnn_digits', changed) == 'runs/cnn_digits,dataset=files_a b,seed=1'
