"""The commands of README.md and docs/, from the top, in a copy of the project; what the pages state.

The README's first two blocks install and run the tests: .ci/run executes them. test_results.py runs the long ones.
"""

import json
import re

import pytest

import recipes
from benchmarks import collect, report, scatter, vision
from benchmarks.translation import table
from settings import Recipe
from tests.conftest import ROOT, copy_project
from tests.pages import ELSEWHERE, LONG, PAGES, TEXTS, blocks, execute

SHORT = [name for name in TEXTS if name not in (*LONG, *ELSEWHERE)]


def test_ci_runs_the_first_two_blocks():
    ci = (ROOT / '.ci' / 'run').read_text()
    (_, install), (_, test) = blocks('README.md')[:2]
    assert 'block 1' in ci and 'block 2' in ci
    assert 'pip install' in install and 'python train.py --model=cnn' in install
    assert 'pytest -n 2 --dist=loadfile\n' in test and 'pytest -m slow -n 3 --dist=loadfile\n' in test


def test_the_readme_is_short():
    assert len(TEXTS['README.md'].splitlines()) <= 180


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_files_and_commands_that_a_page_names_exist(page):
    text = TEXTS[page.name]
    for path in re.findall(r'\]\(([\w./-]+)(?:#[\w-]+)?\)', text):
        assert (page.parent / path).exists(), path
    for command in re.findall(r'python (\w+\.py)', text):
        assert (ROOT / command).exists(), command


@pytest.mark.parametrize('page', collect.pages(), ids=lambda page: page.name)
def test_the_tables_of_results_are_those_of_the_stored_runs(page):
    assert f'{collect.START}\n{collect.pages()[page]}\n{collect.END}\n' in TEXTS[page.name]


def test_the_pages_show_each_stored_run_and_the_readme_only_defaults():
    whole, short = (TEXTS[name].split(collect.START)[1].split(collect.END)[0] for name in ('results.md', 'README.md'))
    for name in collect.stored():
        line = f'\n| `{collect.command(name)}` | '
        assert whole.count(line) == 1 and short.count(line) == (name in recipes.DEFAULT.values()), name
    assert 'for comparison' in whole and 'for comparison' not in short


@pytest.mark.parametrize('values, shown', [
    ({'iou/sky': 0.25, 'mean_iou': 0.51236, 'pixel_accuracy': 0.9}, 'mean IoU 0.5124, pixel accuracy 0.9000'),
    ({'ap': 0.25, 'ap50': 0.5, 'ap75': 0.1, 'ap/cat': 0.3}, 'AP 0.2500, AP50 0.5000'),
    ({'inside': 0.75, 'words': 'all'}, 'inside 0.7500'),      # of a task whose metrics nobody chose from
])
def test_a_row_shows_the_metrics_of_its_task(values, shown):
    results = {'eval': {'loss': 1., **values, 'count': 1234}, 'train_seconds': 90}
    assert collect.row('cnn_digits', results) == f'| `python train.py --model=cnn` | {shown} | 1,234 | 1.5 |'


def test_the_stored_runs_are_those_of_todays_recipes():
    for name, results in collect.stored().items():
        stored = Recipe.from_json(json.dumps(results['recipe']))      # a field that is newer has its default
        recipe = recipes.load(name)[1]
        if f'--weights={collect.WEIGHTS}' in collect.command(name):
            decided = {name: getattr(stored.model, name) for name in recipe.model.left_open
                       if getattr(recipe.model, name) is None}
            recipe = recipe.replace(weights=collect.WEIGHTS, **decided)
        assert stored == recipe.resolved('cpu'), f'{name} must be run again'


def test_every_recipe_has_a_stored_run():
    assert set(collect.stored()) == set(recipes.NAMES) - set(recipes.NOT_RUN)


def test_the_table_of_translations_is_the_stored_one():
    stored = json.loads((ROOT / 'benchmarks' / 'results' / 'translation.json').read_text())
    assert table(stored) in TEXTS['translation.md']
    assert f'`{stored["ours"]["scores"]["bleu_signature"]}`' in TEXTS['translation.md']
    assert stored['bleu_difference'] >= 1 and stored['tokens_per_second_ratio'] >= 1.3


def test_the_table_of_programs_is_the_stored_one():
    stored = json.loads((ROOT / 'benchmarks' / 'results' / 'programs_h200.json').read_text())
    assert report.programs_table(stored) in TEXTS['speed.md']
    for row in stored['equality'].values():
        number = re.sub(r'e-0(\d)', r'e-\1', f'{row["weights_max_rel_diff"]:.1e}')
        assert number in TEXTS['speed.md'], number


def test_the_tables_of_images_are_the_stored_ones():
    stored = json.loads((ROOT / 'benchmarks' / 'results' / 'vision_cpu.json').read_text())
    assert f'<!-- vision -->\n{vision.tables(stored)}\n<!-- /vision -->\n' in TEXTS['speed.md']


def test_the_table_of_gradients_on_a_gpu_is_the_stored_one():
    stored = json.loads((ROOT / 'benchmarks' / 'results' / 'scatter_h200.json').read_text())
    assert scatter.table(stored['deterministic'], stored['free']) in TEXTS['gpu.md']


@pytest.fixture(scope='module')
def executed(tmp_path_factory):
    """A copy of the project in which every block but the first two has run."""
    copy = copy_project(tmp_path_factory.mktemp('readme') / 'project')
    execute('bash', 'python train.py --model=cnn', copy)
    for language, text in blocks(*SHORT)[2:]:
        execute(language, text, copy)
    return copy


@pytest.mark.slow
def test_the_first_run_reaches_its_figure(executed):
    results = json.loads((executed / 'runs' / 'cnn_digits' / 'results.json').read_text())
    assert results['eval']['accuracy'] >= 0.98 and results['eval']['count'] == 360
    assert results['export_max_abs_diff'] < 1e-5


@pytest.mark.slow
def test_one_device_two_workers_and_four_devices_end_with_the_same_bits(executed, measured):
    one, many, four = (json.loads((executed / 'runs' / name / 'results.json').read_text())
                       for name in ('one', 'many', 'four'))
    assert [(r['workers'], r['replicas']) for r in (one, many, four)] == [(1, 1), (2, 4), (1, 4)]
    for other in (many, four):
        assert other['weights_sha256'] == one['weights_sha256'] and other['eval'] == one['eval']
        assert other['flops_per_step'] == one['flops_per_step'] and other['export_max_abs_diff'] < 1e-5
    assert one['eval']['count'] == 360
    measured('E1', 'cnn, 60 steps of train.py: weights, test metrics', '2x2', 0.)
