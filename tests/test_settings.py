"""Sections and their fields: types, bounds, names, help texts; recipes in JSON. No TensorFlow."""

import itertools
import json
import math
import re

import pytest

import recipes
from errors import UserError
from settings import Classification, Images, LSTM, MLP, Options, Recipe, Training
from settings.datasets import NAMED
from settings.fields import bounds
from settings.recipe import SECTIONS, differences, homes

CLASSES = [cls for kinds in SECTIONS.values() for cls in kinds.values()] + [Options]
FIELDS = [(cls, f) for cls in CLASSES for f in cls.__dataclass_fields__.values()]
CNN_DIGITS = recipes.load('cnn_digits')[1]
named = pytest.mark.parametrize('cls, f', FIELDS, ids=lambda x: getattr(x, 'name', getattr(x, '__name__', '')))


def made(cls, **values):
    """A section; what it cannot be without is given."""
    least = {'dataset': 'digits'} if 'dataset' in cls.__dataclass_fields__ else {}
    least |= {'steps': 1} if cls is Training and 'epochs' not in values else {}
    return cls(**least | values)


def test_a_name_is_one_field_in_every_combination_of_sections():
    for combination in itertools.product(*(kinds.values() for kinds in SECTIONS.values())):
        names = [name for cls in combination for name in cls.__dataclass_fields__]
        assert len(names) == len(set(names)), combination
        assert not set(names) & set(Options.__dataclass_fields__), combination
        assert not set(names) & {'recipe', 'model', 'task', 'list', 'help'}, combination


@named
def test_a_help_text_is_a_noun_phrase_that_stands_alone(cls, f):
    text = f.metadata['help']
    assert re.match('[A-Z]', text) and text.endswith(('.', '...'))
    assert not re.search(r'\b(such|next|above|below|this flag or|so many)\b', text, re.IGNORECASE)
    assert not re.match('(Of|The|Whether|Use|Set|Print|Write|Find|Start|Put|Split this) ', text)


@named
def test_every_number_has_bounds_and_every_default_is_legal(cls, f):
    if f.type in (int, float) and f.metadata['choices'] is None:
        given = f.metadata['bounds']
        assert (given['least'], given['above']) != (None, None) and (given['most'], given['below']) != (None, None)
        for wrong in (math.nan, math.inf, -math.inf) if f.type is float else (2 ** 63, -2 ** 63):
            with pytest.raises(UserError, match=f'`{f.name}` must be {re.escape(bounds(f))}. Received: {f.name}='):
                made(cls, **{f.name: wrong})
    if f.default not in ('', 0) and not isinstance(f.default, bool):
        made(cls, **{f.name: f.default})


@named
def test_another_type_is_refused(cls, f):
    wrong = {int: 2.5, float: '1', str: 1, bool: 1}[f.type]
    with pytest.raises(UserError, match=f'`{f.name}` must be of type {f.type.__name__}. Received: {f.name}={wrong!r}'):
        made(cls, **{f.name: wrong})
    if f.type in (int, float):
        with pytest.raises(UserError, match='must be of type'):
            made(cls, **{f.name: True})


@pytest.mark.parametrize('change, message', [
    ({'batch_size': 0}, '`batch_size` must be at least 1 and at most 16,777,216. Received: batch_size=0'),
    ({'learning_rate': -1.}, '`learning_rate` must be above 0 and at most 1e.30. Received: learning_rate=-1.0'),
    ({'steps': 3, 'epochs': 1.}, r'`epochs` and `steps` exclude each other \(steps=3\). Received: epochs=1.0'),
    ({'steps': 0, 'epochs': 0.}, '`steps` or `epochs` must say how long'),
    ({'accumulate': 3}, r'`accumulate` must divide `batch_size` \(128\). Received: accumulate=3'),
    ({'schedule': 'liner'}, "`schedule` must be one of constant, cosine, linear, inverse_sqrt. .* Did you mean linear"),
    ({'precision': 'fp16'}, '`precision` must be one of auto, float32, bfloat16, float16'),
    ({'ema': 1.}, '`ema` must be at least 0 and below 1. Received: ema=1.0'),
    ({'seed': 2 ** 31}, '`seed` must be at least 0 and at most 2,147,483,647. Received: seed=2147483648'),
    ({'augment': 'flip,flop'}, "`augment` must be one of none, .*Received: augment='flop'. Did you mean flip"),
    ({'augment': 'crop,crop'}, "`augment` must have each part once. Received: augment='crop,crop'"),
    ({'augment': 'none,crop'}, "`augment` must have nothing beside none. Received: augment='none,crop'"),
    ({'augment': 'shift,crop'}, '`augment` must have at most one of resized_crop, .* Received: augment=.shift,crop'),
    ({'augment': 'alternating_flip,flip'}, '`augment` must have at most one of flip, .*, alternating_flip. Received'),
    ({'augment': ''}, "`augment` must be one of none, .* Received: augment=''"),
    ({'channels': 2}, '`channels` must be one of 0, 1, 3. Received: channels=2'),
    ({'beam_size': 2}, '`beam_size` is no field of model cnn on digits; it is one of: task translation. Received: '
                       'beam_size=2'),
    ({'beans': 2}, '`beans` is no field of model cnn on digits. Received: beans=2'),
])
def test_a_wrong_field_is_one_line(change, message):
    with pytest.raises(UserError, match=message) as error:
        CNN_DIGITS.replace(**change)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('change, message', [
    ({'jit': 'yes'}, '`jit` must be one of auto, on, off. Received: jit=\'yes\''),
    ({'log_every': 0}, '`log_every` must be at least 1'),
    ({'checkpoint_every': -1}, '`checkpoint_every` must be at least 0'),
    ({'max_minutes': math.inf}, '`max_minutes` must be at least 0 and at most 10,000,000. Received: max_minutes=inf'),
    ({'strategy': 'cuda'}, '`strategy` must be one of auto, cpu, gpu, multiworker, tpu'),
])
def test_a_wrong_option_is_one_line(change, message):
    with pytest.raises(UserError, match=message):
        Options(**change)


def test_a_section_in_the_wrong_place_is_one_line():
    with pytest.raises(UserError, match='`model` of a recipe must be one of MLP, CNN, LSTM, ResNet, .*. Received'):
        Recipe(data=Images('digits'), model=Classification(), task=Classification(), training=Training(steps=1))
    with pytest.raises(UserError, match='`dataset` must be given'):
        Images()


def test_steps_and_epochs_replace_each_other():
    changed = CNN_DIGITS.replace(steps=5)
    assert (changed.training.steps, changed.training.epochs) == (5, 0)
    again = changed.replace(epochs=2.5)
    assert (again.training.steps, again.training.epochs) == (0, 2.5)


@pytest.mark.parametrize('name', recipes.NAMES)
def test_a_recipe_survives_its_file(name):
    recipe = recipes.load(name)[1].replace(seed=7)
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert list(json.loads(recipe.to_json())) == ['data', 'model', 'task', 'training']


def another(f, value):
    """Another value of a field, legal where there is one."""
    legal = f.metadata['choices'] or f.metadata['items']
    if legal:
        return next(one for one in legal if one != value)
    if f.type is float:
        return 0.5 if value != 0.5 else 0.25
    changed = {bool: lambda: not value, int: lambda: f.metadata['bounds']['least'] if value is None else value + 1,
               str: lambda: 'sgd' if value != 'sgd' else 'adam'}
    return changed[f.type]()


@pytest.mark.parametrize('name', recipes.NAMES)
def test_a_changed_field_is_another_recipe_or_refused(name):
    recipe, refused = recipes.load(name)[1], []
    for field, (section, f) in recipe.fields().items():
        value = another(f, getattr(getattr(recipe, section), field))
        try:
            changed = recipe.replace(**{field: value})
        except UserError as error:
            assert f'`{field}`' in str(error) and '\n' not in str(error)
            refused.append(field)
            continue
        assert json.loads(changed.to_json())[section][field] == value
        assert changed.to_json() != recipe.to_json()
        assert any(line.startswith(f'{field}: ') for line in differences(recipe, changed))
    assert set(refused) <= {'accumulate', 'batch_size', 'average_last', 'average_every', 'ema', 'nesterov',
                            'length_penalty'}


@pytest.mark.parametrize('text, message', [
    ('{', 'it is not JSON'), ('[]', 'it must have the sections data, model, task, training'),
    ('{"model": "mlp", "size": "", "steps": 5}', 'written by version 0.4.0 or older, which had no sections. Use that'),
    (CNN_DIGITS.to_json().replace('"cnn"', '"cmn"'), "`model` must be one of mlp, cnn, .*Received: model='cmn'"),
    (CNN_DIGITS.to_json().replace('"cnn"', '["cnn"]'), '`model` must be one of mlp'),
    (CNN_DIGITS.to_json().replace('"seed"', '"sead"'), 'its section training has fields .* not know: sead'),
    (CNN_DIGITS.to_json().replace('"seed": 0', '"seed": NaN'), '`seed` must be of type int. Received: seed=nan'),
    (json.dumps({name: [] for name in SECTIONS}), 'its section data must hold fields'),
])
def test_a_file_that_is_no_recipe_is_one_line(text, message):
    with pytest.raises(UserError, match=message) as error:
        Recipe.from_json(text)
    assert '\n' not in str(error.value)


def test_differences_name_what_only_one_has():
    wanted = Recipe(data=CNN_DIGITS.data, model=LSTM(), task=CNN_DIGITS.task, training=CNN_DIGITS.training)
    assert differences(CNN_DIGITS, wanted)[0] == "model: 'cnn' there, 'lstm' here"
    assert 'units: None there, 50 here' in differences(CNN_DIGITS, wanted)
    assert differences(CNN_DIGITS.resolved('tpu'), CNN_DIGITS) == []
    assert MLP() == MLP() and not differences(wanted, wanted)


def test_homes_are_where_a_field_exists():
    assert homes()['dropout'] == ['model lstm', 'model transformer', 'model bert']
    assert homes()['label_smoothing'] == [f'task {name}' for name in ('classification', 'segmentation', 'masked_lm',
                                                                      'translation')]
    assert homes()['seed'] == ['training']


def test_the_datasets_of_the_list_are_those_that_can_be_opened():
    import data
    assert {name for name in NAMED if '/' not in name} == set(data.DATASETS)


SIZES = {'input_shape', 'outputs', 'box_classes', 'pixel_classes', 'source_vocabulary_size', 'target_vocabulary_size',
         'vocabulary_size', 'length', 'predictions', 'spans'}


@pytest.mark.parametrize('kind', SECTIONS['model'])
def test_the_fields_of_a_model_are_the_options_of_its_function(kind):
    import inspect

    import models
    assert set(SECTIONS['model']) == set(models.MODELS)
    parameters = inspect.signature(models.MODELS[kind]).parameters
    options = {name: parameter.default for name, parameter in parameters.items() if name not in SIZES}
    assert options == {f.name: f.default for f in SECTIONS['model'][kind].__dataclass_fields__.values()
                       if f.name != 'weights'}


def test_the_tasks_are_those_of_the_tasks():
    import tasks
    assert set(SECTIONS['task']) == set(tasks.TASKS)
