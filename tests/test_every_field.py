"""No field is ignored: in every recipe, each field set to another legal value changes what a run leaves, or is refused.

The runs are real ones of a few steps, on a few examples. A field is tried in the slow tier once for each thing that it
may mean: one of a model with that model, one of a task or of data with the first recipe of both, and one of the
training, which is the same for all, with the first recipe. All other pairs of a recipe and a field are of the tier
`results`.
"""

import contextlib
import dataclasses
import functools
import gc
import io
import json

import keras
import numpy as np
import pytest
from PIL import Image
from tensorflow.python.framework.ops import gradient_registry

import data
import recipes
import train
from data.source import Subset
from errors import RunError, UserError
from settings import Options
from settings.models import Residual

# A short run; and data that every machine has in place of what may be missing, or takes long.
SHORT = {'batch_size': 8, 'steps': 4, 'eval_every': 4, 'warmup_steps': 1}
AVERAGED = {'average_last': 2, 'average_every': 1}
DATA = {**dict.fromkeys(('sst2', 'imdb', 'trec', 'pydoc'), 'moods'), 'squad': 'answers', 'gettext/de': 'pairs',
        'fashion_mnist': 'shapes', 'cifar10': 'shapes', 'imagenet2012': 'shapes',
        **dict.fromkeys(('fashion_scenes', 'bccd', 'camvid', 'coco/2017', 'oxford_iiit_pet'), 'digit_scenes')}
OTHER_DATA = {'images': 'bars', 'texts': 'moods2', 'vectors': 'digits', 'text_pairs': 'pairs2',
              'questions': 'answers2'}
# Rows of few tokens, so that a BERT is fast; questions about texts of several windows.
TOKENS = {'texts': {'max_length': 16}, 'questions': {'max_length': 32, 'question_length': 8, 'stride': 12}}
# Another value of a field that has neither choices nor two values.
OTHER = {'batch_size': 4, 'steps': 5, 'epochs': 1., 'eval_every': 2, 'warmup_steps': 3, 'accumulate': 2, 'seed': 1,
         'optimizer': 'nadam', 'learning_rate': 1e-2, 'momentum': 0.5, 'beta_2': 0.9, 'epsilon': 1e-3,
         'weight_decay': 0.3, 'clip_norm': 1e-3, 'ema': 0.5, 'average_last': 3, 'average_every': 2,
         'image_size': 12, 'max_length': 4, 'word_dropout': 0.5, 'units': 7, 'dropout': 0.35, 'label_smoothing': 0.3,
         'beam_size': 2, 'length_penalty': 9., 'precision': 'bfloat16', 'width': 8, 'min_score': 0.05, 'num_layers': 1,
         'd_model': 64, 'd_ff': 100, 'heads': 1, 'positions': 40, 'norm_epsilon': 0.5, 'question_length': 1,
         'stride': 7}
OTHER_OF_SCENES = {'dataset': 'fashion_scenes', 'image_size': 64, 'width': 4, 'channels': 1}
# Small models first: what does not depend on the model is tried with the first that has the task.
ORDER = ('mlp', 'cnn', 'lstm', 'resnet', 'centernet', 'unet', 'transformer', 'bert')
NAMES = sorted(recipes.NAMES, key=lambda name: next(
    (i for i, model in enumerate(ORDER) if recipes.load(name)[1].model.kind == model), len(ORDER)))
FIRST = {}                          # what a field may mean -> the first recipe in which it does


def meaning(recipe, field):
    """What a field may depend on, and its name. Those of a Residual are passed on to one function by all its models."""
    section = recipe.fields()[field][0]
    shared = field in Residual.__dataclass_fields__ and isinstance(recipe.model, Residual)
    kinds = {'model': ('residual' if shared else recipe.model.kind,), 'data': (recipe.data.kind, recipe.task.kind),
             'task': (recipe.data.kind, recipe.task.kind), 'training': ()}
    return field, section, *kinds[section]


for name in NAMES:
    for field in recipes.load(name)[1].fields():
        FIRST.setdefault(meaning(recipes.load(name)[1], field), name)


def tier(name, field=None):
    """field: None where the recipe itself is run."""
    recipe = recipes.load(name)[1]
    first = name in FIRST.values() if field is None else FIRST[meaning(recipe, field)] == name
    return pytest.mark.slow if first else pytest.mark.results


def parameters():
    for name in NAMES:
        yield from (pytest.param(name, field, marks=tier(name, field), id=f'{name}-{field}')
                    for field in recipes.load(name)[1].fields())


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder of data sets: moods, pairs, shapes, and others of the same fields."""
    folder, rng = tmp_path_factory.mktemp('data'), np.random.default_rng(0)

    def sentence(letters):
        words = (rng.choice(list(letters), rng.integers(2, 6)) for _ in range(rng.integers(2, 9)))
        return ' '.join(map(''.join, words))
    for name, words in (('moods', ['dull', 'good']), ('moods2', ['sad', 'glad'])):
        (folder / name).mkdir()
        lines = [f'{word}\t{sentence("abcdefgh")} {word}' for word in rng.choice(words, 200)]
        (folder / name / 'texts.tsv').write_text('\n'.join(lines) + '\n')
    for name, letters in (('pairs', 'abcdefgh'), ('pairs2', 'ijklmnop')):
        (folder / name / 'train').mkdir(parents=True)
        texts = [sentence(letters) for _ in range(200)]
        (folder / name / 'train' / 'source.txt').write_text('\n'.join(texts) + '\n')
        (folder / name / 'train' / 'target.txt').write_text('\n'.join(text[::-1] for text in texts) + '\n')
    for name, letters in (('answers', 'abcdefgh'), ('answers2', 'ijklmnop')):
        (folder / name).mkdir()
        texts = [' '.join(sentence(letters) for _ in range(4)) for _ in range(90)]
        paragraphs = [{'context': text, 'qas': [{'id': text, 'question': f'where is {text[:2]}?', 'answers': [
            {'text': text.split()[0], 'answer_start': 0}]}]} for text in texts]
        (folder / name / 'train.json').write_text(json.dumps({'data': [{'paragraphs': paragraphs}]}))
    for name, axis in (('shapes', 0), ('bars', 1)):
        for i in range(90):
            pixels = rng.integers(0, 100, (16, 16), np.uint8)
            pixels.swapaxes(0, axis)[5 * (i % 3):5 * (i % 3) + 5] += 100
            (folder / name / 'abc'[i % 3]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / name / 'abc'[i % 3] / f'{i}.png')
    return folder


@pytest.fixture(scope='module')
def few():
    """Data sets of a few dozens of examples."""
    whole = data.open_dataset

    def cut(*arguments):
        dataset = whole(*arguments)
        sizes = {'train': 40, 'validation': 10, 'test': 10}
        sources = {split: dataset.split(split) for split in sizes}
        return dataclasses.replace(dataset, **{
            split: Subset(source, range(min(sizes[split], source.num_examples))) for split, source in sources.items()})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, 'open_dataset', cut)
        yield


@pytest.fixture(scope='module')
def left(few, folder, tmp_path_factory):
    """left(recipe) -> (what a run of it leaves, its folder)."""
    def run(recipe):
        workdir = tmp_path_factory.mktemp('runs') / 'run'
        forget_graphs()
        with contextlib.redirect_stdout(io.StringIO()):
            results = train.run(recipe, Options(workdir=str(workdir), data_dir=str(folder), export=False))
        records = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
        evaluated = [record['step'] for record in records if 'split' in record]
        return {key: results[key] for key in ('eval', 'best', 'weights_sha256')} | {'evaluated': evaluated}, workdir
    return run


def forget_graphs():
    """Or those of all runs stay in memory: TensorFlow 2.21 keeps every custom gradient, and with it its graph."""
    keras.backend.clear_session()
    known = gradient_registry._registry
    for name in [name for name in known if name.startswith('CustomGradient-')]:
        del known[name]
    gc.collect()


@pytest.fixture(scope='module')
def base(left):
    """base(name of a recipe) -> (the recipe, short; what a run of it leaves; its folder)."""
    @functools.cache
    def run(name):
        recipe = short(recipes.load(name)[1])
        return recipe, *left(recipe)
    return run


def short(recipe):
    """The recipe with few steps, and with data that are here."""
    values = SHORT | {'dataset': DATA.get(recipe.data.dataset, recipe.data.dataset)}
    if recipe.training.average_last:
        values |= AVERAGED
    if values['dataset'] == 'digit_scenes':
        values |= {'image_size': 32, 'width': 8, 'size': '18'}
    elif values['dataset'] == 'shapes' or recipe.values().get('image_size', 0) > 28:
        values['image_size'] = 16
    if recipe.values().get('vocabulary_size'):
        values['vocabulary_size'] = 300
    if recipe.model.kind == 'bert':
        values |= TOKENS[recipe.data.kind] | {'size': 'tiny'}
    return recipe.replace(**values)


def other(recipe, field, workdir):
    """Another legal value of a field."""
    f, value = recipe.fields()[field][1], recipe.values()[field]
    if recipe.data.dataset == 'digit_scenes' and field in OTHER_OF_SCENES:
        return OTHER_OF_SCENES[field]
    if field == 'dataset':
        return OTHER_DATA[recipe.data.kind]
    if field == 'weights':
        return str(workdir)
    if field == 'vocabulary_size':
        return 9 if recipe.data.tokenizer == 'words' else 290
    if field == 'channels':
        # 0 is grey for the digits, and colour for files.
        return 1 if value == 3 or recipe.data.dataset == 'shapes' else 3
    if field == 'tokenizer':
        return 'subwords' if value == 'words' else 'words'
    if field == 'size':      # the second, since the last takes long
        return f.metadata['choices'][1]
    if field in OTHER:
        return OTHER[field]
    if f.metadata['items']:
        return f.metadata['items'][-1]
    if f.metadata['choices']:      # the last, since the first may mean the value of the data or of this machine
        return next(choice for choice in reversed(f.metadata['choices']) if choice != value)
    return not value


@pytest.mark.parametrize('name', [pytest.param(name, marks=tier(name)) for name in NAMES])
def test_the_same_recipe_leaves_the_same(left, base, name):
    """Else a field that nothing reads would seem to have an effect."""
    recipe, before, _ = base(name)
    assert left(recipe)[0] == before


@pytest.mark.parametrize('name, field', [*parameters()])
def test_a_field_has_an_effect_or_is_refused(left, base, name, field):
    recipe, before, workdir = base(name)
    value = other(recipe, field, workdir)
    assert value != recipe.values()[field]
    try:
        after, _ = left(recipe.replace(**{field: value}))
    except (UserError, RunError) as error:
        assert f'`{field}`' in str(error) or f'{field}=' in str(error)
        assert '\n' not in str(error)
    else:
        assert after != before
