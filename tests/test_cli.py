"""The command line as processes: which flags a recipe has, what a wrong one is told, --help and --list."""

import json
import re

import pytest

import cli
import recipes
from settings import Options
from settings.fields import bounds
from settings.recipe import SECTIONS
from tests.conftest import ROOT

# A command that imports TensorFlow, or needs it, fails in this environment.
NO_TENSORFLOW = 'raise SystemExit("TensorFlow was imported")'


@pytest.fixture(scope='module')
def run_bare(run_python, tmp_path_factory):
    """run_bare(arguments): a verb in a process in which TensorFlow cannot be imported."""
    folder = tmp_path_factory.mktemp('bare')
    (folder / 'tensorflow').mkdir()
    (folder / 'tensorflow' / '__init__.py').write_text(NO_TENSORFLOW)
    path = f'{folder}:{ROOT}'

    def run(*arguments, cwd=ROOT):
        # -P: the folder of the script does not come before the path.
        verb, *flags = arguments
        return run_python('-P', ROOT / verb, *flags, check=False, env={'PYTHONPATH': path}, cwd=cwd)
    return run


@pytest.mark.parametrize('flags, message', [
    ('--model=mlp --beam_size=7', '`beam_size` is no field of recipe mlp_digits; it is one of: task translation. '
                                  'Received: --beam_size=7'),
    ('--model=mlp --dataset=diabetes --label_smoothing=0.3',
     '`label_smoothing` is no field of recipe mlp_diabetes; it is one of: task classification, task '
     'segmentation, task masked_lm, task translation. Received: --label_smoothing=0.3'),
    ('--model=cnn --dropout=0.1', '`dropout` is no field of recipe cnn_digits; it is one of: model lstm, model '
                                  'transformer, model bert. Received: --dropout=0.1'),
    ('--model=mlp --nopacking', '`packing` is no field of recipe mlp_digits; it is one of: data text_pairs. Received: '
                                '--nopacking'),
    ('--recipe=lstm_digits --model=cnn', '`model` of recipe lstm_digits is lstm: another one needs another recipe. '
                                         "Received: model='cnn'"),
    ('--modell=cnn', "Unknown command line flag 'modell'. Did you mean: model ?"),
    ('--model=cnn --stepps=5', "Unknown command line flag 'stepps'. Did you mean: steps ?"),
    ('--steps=5', '`--model` or `--recipe` must say what to train. Models: mlp, cnn, lstm, resnet, centernet, '
                  'unet, deeplab, airbench, transformer, bert; recipes: airbench_'),
    ('', '`--model` or `--recipe` must say what to train.'),
    ('--model', 'Missing value for flag --model'),
    ('--model=transformer --nopacking=1', '--nopacking=1 does not take an argument'),
    ('--model=mlp --seed=99999999999', '`seed` must be at least 0 and at most 2,147,483,647. Received: seed=9999'),
    ('--model=mlp --batch_size=2000000000', '`batch_size` must be at least 1 and at most 16,777,216. Received'),
    ('--model=mlp --epochs=1e300', '`epochs` must be at least 0 and at most 1,000,000. Received: epochs=1e+300'),
    ('--model=mlp --max_minutes=inf', '`max_minutes` must be at least 0 and at most 10,000,000. Received'),
    ('--model=mlp --learning_rate=nan', '`learning_rate` must be above 0 and at most 1e+30. Received'),
    ('--model=mlp --learning_rate=1e38', '`learning_rate` must be above 0 and at most 1e+30. Received'),
    ('--model=mlp --seed=-1', '`seed` must be at least 0'),
    ('--model=mlp --steps=5 --epochs=120', '`epochs` and `steps` exclude each other (steps=5). Received: epochs=120.0'),
    ('--seed 7 --model mlp digits', '`train.py` takes flags only. Received: digits'),
    ('--model=mlp --strategy=cuda', '`strategy` must be one of auto, cpu, gpu, multiworker, tpu'),
    ('--recipe=none.py', '`recipe` must be a name or a file that can be read (No such file or directory)'),
])
def test_a_wrong_flag_is_one_line_before_tensorflow_is_imported(run_bare, flags, message, tmp_path):
    done = run_bare('train.py', *flags.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, '') and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f'error: {message}')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('flags, name, changes', [
    ('--model=cnn --strategy=tpu', 'cnn_digits', {}), ('--model=mlp --dataset=diabetes', 'mlp_diabetes', {}),
    ('--model=transformer --dataset=gettext/de --beam_size=1', 'transformer_gettext_de', {'beam_size': 1}),
    ('--model=transformer --task=classification --dropout=0.2 --ema=0', 'transformer_sst2', {'dropout': .2, 'ema': 0.}),
])
def test_flags_change_the_fields_that_they_name_and_no_others(run_bare, tmp_path, flags, name, changes):
    recipe = recipes.load(name)[1].replace(**changes)
    (tmp_path / 'recipe.json').write_text(recipe.to_json())
    (tmp_path / 'results.json').write_text('{"steps": 7}')
    done = run_bare('train.py', f'--workdir={tmp_path}', *flags.split())      # another recipe's folder is refused
    assert (done.returncode, done.stderr) == (0, '') and 'holds this run, finished at step 7' in done.stdout
    done = run_bare('train.py', f'--workdir={tmp_path}', *flags.split(), '--seed=7')
    assert done.returncode == 2 and 'belongs to another recipe (seed: 0 there, 7 here)' in done.stderr


@pytest.fixture
def regression(tmp_path):
    """The folder of a run of mlp_diabetes that has not begun to train."""
    (tmp_path / 'recipe.json').write_text(recipes.load('mlp_diabetes')[1].to_json())
    return tmp_path


@pytest.mark.parametrize('verb, flags, message', [
    ('evaluate.py', '--beam_size=9', '`beam_size` is no field of model mlp on diabetes; it is one of: task translation'
                                     '. Received: beam_size=9'),
    ('evaluate.py', '--length_penalty=1', '`length_penalty` is no field of model mlp on diabetes; it is one of: task'),
    ('evaluate.py', '--batch_size=-1', '`batch_size` must be at least 1 and at most 16,777,216. Received: batch_size='),
    ('evaluate.py', '--virtual_devices=-1', '`virtual_devices` must be at least 0 and at most 1,024'),
    ('evaluate.py', '--split=tests', '`split` must be one of train, validation, test. Received: split='),
    ('evaluate.py', 'test', '`evaluate.py` takes flags only. Received: test'),
    ('predict.py', '', '`--values` is required: Numbers with commas between'),
    ('predict.py', '--text=a', '`text` is no flag for this run, which is of the task regression on vectors: use '
                               '--values. Received: --text=a'),
    ('predict.py', '--values=1 --beam_size=2', '`beam_size` is no flag for this run'),
    ('predict.py', '--valuse=1', "Unknown command line flag 'valuse'. Did you mean: values ?"),
    ('predict.py', 'a.png', '`predict.py` takes flags only'), ('export.py', 'b', '`export.py` takes flags only'),
    ('export.py', '--learning_rate=1', 'Unknown command line flag \'learning_rate\''),
    ('export.py', '--output=a --format=onxx', '`format` must be one of saved_model, keras, litert, onnx, openvino, '
                                              "huggingface. Received: format='onxx'. Did you mean onnx?"),
    ('export.py', '--output=a --format=onnx --quantize=float16', '`quantize` must be none for the format onnx. '
                                                                 'Received: quantize=float16'),
    ('export.py', '--output=a --quantize=float16', '`quantize` must be none for the format saved_model.'),
    ('export.py', '--output=a --batch_size=4', '`batch_size` must be 0 for the format saved_model. Received: batch_si'),
    ('export.py', '--output=a --format=onnx --batch_size=-1', '`batch_size` must be at least 0 for the format onnx.'),
    ('export.py', '--output=tests --format=litert', '`output` must be new, or a folder of the format litert'),
])
def test_a_flag_that_a_run_has_not_is_one_line(run_bare, regression, verb, flags, message):
    before = {file: file.read_bytes() for file in regression.iterdir()}
    done = run_bare(verb, f'--workdir={regression}', *flags.split())
    assert (done.returncode, done.stdout) == (2, '') and len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert {file: file.read_bytes() for file in regression.iterdir()} == before


@pytest.mark.parametrize('flags, message', [
    ('--length_penalty=1', '`length_penalty` is for beam search: `beam_size` must be above 1. Received: '
                           'length_penalty=1.0'),
    ('--temperature=0.5 --beam_size=4', '`beam_size` is for searching and `temperature` for sampling: give one of the '
                                        'two. Received: --beam_size=4 --temperature=0.5'),
])
def test_a_flag_that_would_change_no_translation_is_one_line(run_bare, tmp_path, flags, message):
    (tmp_path / 'recipe.json').write_text(recipes.load('transformer_number_words')[1].to_json())
    done = run_bare('predict.py', f'--workdir={tmp_path}', '--text=one', *flags.split())
    assert (done.returncode, done.stdout, done.stderr) == (2, '', f'error: {message}\n')


@pytest.mark.parametrize('verb', ['evaluate.py', 'export.py', 'predict.py'])
def test_a_run_of_0_4_0_is_one_line(run_bare, tmp_path, verb):
    (tmp_path / 'recipe.json').write_text(json.dumps({'model': 'mlp', 'size': '', 'steps': 5}))
    more = {'evaluate.py': [], 'export.py': [f'--output={tmp_path / "1"}'], 'predict.py': ['--values=1']}[verb]
    done = run_bare(verb, f'--workdir={tmp_path}', *more)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert 'was written by version 0.4.0 or older, which had no sections' in done.stderr


@pytest.mark.parametrize('flags, name', [
    (['--model=cnn'], 'cnn_digits'), (['--model', 'transformer', '--dataset=gettext/de'], 'transformer_gettext_de'),
    (['--seed', '7', '--model', 'lstm'], 'lstm_digits'), (['--recipe=mlp_diabetes'], 'mlp_diabetes')])
def test_help_shows_the_flags_of_the_recipe_with_its_values(run_bare, flags, name):
    _, recipe = recipes.load(name)
    done = run_bare('train.py', *flags, '--help')
    assert done.returncode == 0 and done.stderr == ''
    titles = re.findall(r'^([a-z].*)$', done.stdout.split('\n\n', 3)[-1], flags=re.MULTILINE)
    wanted = [f'{section}: {getattr(recipe, section).kind}' for section in ('data', 'model', 'task')
              if getattr(recipe, section).values()]
    assert titles == [f'what to train: recipe {name}', *wanted, 'training', 'run']
    shown = dict(re.findall(r'^  --(?:\[no\])?(\w+)(?: \(default: (.*)\))?$', done.stdout, flags=re.MULTILINE))
    options = {f.name: f.default for f in Options.__dataclass_fields__.values()}
    assert set(shown) == {*cli.SELECTORS, 'list', *recipe.values(), *options}
    for field, value in {**recipe.values(), **options}.items():
        assert shown[field] == ('' if value is None else repr(value)), field


def flags_of(help):
    return re.findall(r'^  --(?:\[no\])?(\w+)', help, flags=re.MULTILINE)


GENERAL = ['workdir', 'checkpoint', 'data_dir', 'json']
WRITING = ['beam_size', 'length_penalty', 'temperature', 'top_k', 'top_p', 'seed', 'attention']


@pytest.mark.parametrize('name, own', [
    ('mlp_diabetes', ['values']), ('cnn_digits', ['image']), ('lstm_imdb', ['text']),
    ('transformer_number_words', ['text', *WRITING])])
def test_the_help_of_predict_shows_the_flags_of_the_run(run_bare, tmp_path, name, own):
    _, recipe = recipes.load(name)
    (tmp_path / 'recipe.json').write_text(recipe.to_json())
    done = run_bare('predict.py', '--help', '--workdir', tmp_path)
    assert (done.returncode, done.stderr, flags_of(done.stdout)) == (0, '', [*GENERAL, *own])
    assert f'\ntask: {recipe.task.kind}\n  --{own[0]}\n' in done.stdout and 'depend on' not in done.stdout


def test_predict_without_a_run_says_how_to_see_its_flags(run_bare):
    done = run_bare('predict.py', '--help')
    assert (done.returncode, done.stderr, flags_of(done.stdout)) == (0, '', GENERAL)
    assert done.stdout.endswith('The other flags depend on the run: python predict.py --workdir=RUN --help\n')
    for flags, message in (('--image=a.png', '`image` is a flag of some runs only and needs --workdir. Received: '
                                             '--image=a.png'), ('--json', '`--workdir` is required'),
                           ('--imag=a.png', "Unknown command line flag 'imag'"),
                           ('--workdir=nowhere --help', '`workdir` must hold a run')):
        done = run_bare('predict.py', *flags.split())
        assert (done.returncode, done.stdout) == (2, '') and len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith(f'error: {message}')


def test_help_without_a_recipe_says_how_to_see_the_rest(run_bare):
    done = run_bare('train.py', '--help')
    assert done.returncode == 0
    assert flags_of(done.stdout) == [*cli.SELECTORS, 'list']
    assert done.stdout.endswith('The other flags depend on the recipe: python train.py --model=MODEL --help\n')


@pytest.mark.parametrize('verb', ['evaluate.py', 'predict.py', 'export.py', 'preflight.py', 'program.py'])
def test_the_help_of_every_verb_is_made_of_noun_phrases(run_bare, verb):
    done = run_bare(verb, '--help', *(['--model=mlp'] if verb in ('preflight.py', 'program.py') else []))
    assert done.returncode == 0 and f'python {verb}' in done.stdout
    texts = re.split(r'^  --.*$', done.stdout, flags=re.MULTILINE)[1:]
    assert len(texts) > 3
    for text in texts:
        assert re.match(r'\s*[A-Z]', text) and not re.match(r'\s*(Of|Print|Write|Find|Which|Use)\b', text)
        assert not re.search(r'\b(such|next|this flag or|so many)\b', text)


def test_the_list_names_everything(run_python):
    done = run_python('train.py', '--list')
    titles = re.findall(r'^(\w+)$', done.stdout, flags=re.MULTILINE)
    assert titles == ['models', 'tasks', 'recipes', 'datasets', 'strategies']
    for name in (*SECTIONS['model'], *SECTIONS['task'], *recipes.NAMES, *cli.DATASETS, 'multiworker'):
        assert f'\n  {name} ' in done.stdout
    assert re.search(r'^  cpu +yes: \d+ cores$', done.stdout, flags=re.MULTILINE)
    assert done.stderr == ''


def test_a_run_says_what_it_inherits_and_trains_ones_own_recipe(run_python, tmp_path):
    for kind in ('cats', 'dogs'):
        (tmp_path / 'images' / kind).mkdir(parents=True)
        for i in range(30):
            (tmp_path / 'images' / kind / f'{i}.png').write_bytes((ROOT / 'tests' / 'images' / 'digit.png').read_bytes()
                                                                  + bytes([i]))
    (tmp_path / 'mine.py').write_text((ROOT / 'recipes' / 'lstm_digits.py').read_text())
    done = run_python('train.py', f'--recipe={tmp_path / "mine.py"}', f'--dataset=files/{tmp_path / "images"}',
                      '--steps=2', '--batch_size=8', '--noexport', f'--workdir={tmp_path / "run"}')
    assert 'recipe    mine\n' in done.stdout
    assert 'note      recipe mine was made for digits; image_size=16 and augment=shift are kept\n' in done.stdout
    results = json.loads((tmp_path / 'run' / 'results.json').read_text())
    assert (results['model'], results['recipe']['data']['image_size']) == ('lstm', 16)
    assert list(results['recipe']) == ['data', 'model', 'task', 'training']
    assert results['recipe']['training']['steps'] == results['steps'] == 2
    assert results['recipe'] == json.loads((tmp_path / 'run' / 'recipe.json').read_text())


def test_bounds_are_said_in_words():
    fields = {f.name: f for cls in (*SECTIONS['task'].values(), Options) for f in cls.__dataclass_fields__.values()}
    assert bounds(fields['label_smoothing']) == 'at least 0 and below 1'
    assert bounds(fields['beam_size']) == 'at least 1 and at most 1,024'
