"""Adding a data set, a task, a model as docs/adding.md says, each alone and all together, in copies of the project."""

import json
import re
import shlex
import subprocess
import sys

import pytest

from tests.conftest import ROOT, clean_environment, copy_project

PAGE = (ROOT / 'docs' / 'adding.md').read_text(encoding='utf-8')
README = (ROOT / 'README.md').read_text(encoding='utf-8')
MARKER = re.compile(r'^# ([\w/]+\.py)(?:, (at its end|in (\w+)))?$', re.MULTILINE)
MOST = 25
# section -> (what it adds, its run, metric, at least, at most; a raw input for predict.py, the answer to it, tests of
# what is registered)
EXPECTED = {
    # Of an mse of 1, the noise, no more can be learnt; that of the mean is 25.
    'A data set': ('friedman', 'mlp_diabetes,dataset=friedman,epochs=60.0,learning_rate=0.01', 'mse', 0.9, 2.,
                   '--values=' + ','.join(10 * ['0.5']), r': 1\d\.\d+$',
                   ['tests/test_settings.py', 'tests/data/test_open_dataset.py']),
    'A task': ('quantiles', 'mlp_diabetes,task=quantiles,coverage=0.9', 'inside', 0.75, 0.99,
               '--values=' + ','.join(10 * ['0']), r': low -\d.*, median .*, high \d',
               ['tests/test_settings.py', 'tests/tasks/test_contract.py', 'tests/test_recipes.py']),
    'A model': ('residual_mlp', 'residual_mlp_digits,blocks=3', 'accuracy', 0.93, 1.,
                '--image=tests/images/digit.png', r': \d \d+\.\d%',
                ['tests/test_settings.py', 'tests/models/test_model_contract.py', 'tests/training/test_jit.py',
                 'tests/test_recipes.py']),
}


def section(page, title):
    """The text below a heading."""
    return re.search(rf'^## {title}\n(.*?)(?=^## |\Z)', page, flags=re.DOTALL | re.MULTILINE)[1]


def readme(title):
    """The README's section on what a section of the page adds."""
    return section(README, f'Add {title.lower()}')


def blocks(text, language):
    return re.findall(rf'^```{language}\n(.*?)^```$', text, flags=re.DOTALL | re.MULTILINE)


def pieces(title):
    """[(path, where, name, lines)] of the code of a section of the page."""
    [code] = blocks(section(PAGE, title), 'python')
    empty, *parts = MARKER.split(code)
    assert not empty
    return [(*parts[i:i + 3], parts[i + 3].strip('\n').split('\n')) for i in range(0, len(parts), 4)]


def commands(title):
    return [line for block in blocks(section(PAGE, title), 'bash') for line in block.splitlines()]


def add(project, title):
    """Does in a copy of the project what a section says, and nothing else."""
    for path, where, name, lines in pieces(title):
        file = project / path
        if not where:
            assert not file.exists(), path
            file.write_text('\n'.join(lines) + '\n')
            continue
        text = file.read_text()
        if name:
            imports = ''.join(f'{line}\n' for line in lines if line.startswith('from '))
            entries = ''.join(f'{line}\n' for line in lines if not line.startswith('from '))
            head = f'{name} = {{\n'
            assert text.count(f'\n{head}') == 1 and entries, (path, name)
            text = text.replace(f'\n{head}', f'\n{head}{entries}')
            last = list(re.finditer(r'^from .*\n', text, flags=re.MULTILINE))[-1].end() if imports else 0
            text = text[:last] + imports + text[last:]
        else:
            text += '\n\n' + '\n'.join(lines) + '\n'
        file.write_text(text)


def run(project, *arguments, code=0):
    """What a command that ends with `code` prints: its output, else its error."""
    environment = clean_environment(PYTHONPATH=str(project), CUDA_VISIBLE_DEVICES='')
    done = subprocess.run([sys.executable, *arguments], cwd=project, env=environment, capture_output=True, text=True,
                          timeout=600)
    assert done.returncode == code, f'{arguments}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}'
    return done.stderr if code else done.stdout


def run_command(project, command):
    python, *arguments = shlex.split(command)
    assert python == 'python'
    return run(project, *arguments)


def check_run(project, title):
    """Trained, evaluated, exported, asked: the run of a section's command."""
    _, name, metric, least, most, raw, answer, _ = EXPECTED[title]
    results = json.loads((project / 'runs' / name / 'results.json').read_text())
    assert least <= results['eval'][metric] <= most, results['eval']
    assert results['export_max_abs_diff'] < 1e-5 and (project / 'runs' / name / 'export' / '1').is_dir()
    workdir = f'--workdir=runs/{name}'
    assert re.search(answer, run(project, 'predict.py', workdir, raw).strip())
    assert json.loads(run(project, 'evaluate.py', workdir))[metric] == pytest.approx(results['eval'][metric])
    run(project, 'export.py', workdir, '--checkpoint=best', '--output=served/1')
    assert (project / 'served' / '1' / 'saved_model.pb').exists()


@pytest.mark.parametrize('title', EXPECTED)
def test_a_walk_through_is_short(title):
    code = [line for *_, lines in pieces(title) for line in lines]
    assert len(code) <= MOST
    said = re.search(rf'docs/adding.md#{title.lower().replace(" ", "-")}\)\D*(\d+) lines', readme(title))
    assert int(said[1]) == len(code)
    assert max(map(len, code)) <= 120


@pytest.mark.parametrize('title', EXPECTED)
def test_the_readme_shows_lines_and_the_command_of_the_page(title):
    text = readme(title)
    [shown] = blocks(text, 'python')
    assert shown in blocks(section(PAGE, title), 'python')[0]
    assert re.findall(r'`(python train.py .*?)`', text) == commands(title)


def test_all_fit_together_and_into_the_project(tmp_path):
    project = copy_project(tmp_path / 'project')
    for title in EXPECTED:
        add(project, title)
    run(project, '-m', 'flake8', 'data', 'models', 'recipes', 'settings', 'tasks')
    shown = run(project, 'train.py', '--model=residual_mlp', '--help')
    assert 'model: residual_mlp\n' in shown and '\n  --blocks (default: 2)\n' in shown and 'friedman' in shown
    shown = run(project, 'train.py', '--model=mlp', '--task=quantiles', '--dataset=diabetes', '--help')
    assert 'recipe mlp_diabetes,task=quantiles\n' in shown and '\n  --coverage (default: 0.8)\n' in shown


@pytest.mark.slow
@pytest.mark.parametrize('title', EXPECTED)
def test_a_walk_through_alone(tmp_path, title):
    added, *_, tests = EXPECTED[title]
    project = copy_project(tmp_path / 'project')
    add(project, title)
    for command in commands(title):
        run_command(project, command)
    check_run(project, title)
    tested = run(project, '-m', 'pytest', '-p', 'no:cacheprovider', '-v', *tests)
    assert re.search(rf'{added}.* PASSED', tested)
    run(project, '-m', 'flake8')
    assert f'\n  {added} ' in run(project, 'train.py', '--list')


@pytest.mark.slow
def test_all_together_and_a_result_of_ones_own(tmp_path):
    """The new model learns the new task from the new data, by a recipe of the user's own; a new recipe is published."""
    project = copy_project(tmp_path / 'project')
    for title in EXPECTED:
        add(project, title)
    (tmp_path / 'mine.py').write_text(
        'from settings import Recipe, Training, Vectors, models, tasks\n'
        "RECIPE = Recipe(data=Vectors('friedman'), model=models.ResidualMLP(), task=tasks.Quantiles(),\n"
        '                training=Training(epochs=10))\n')
    run(project, 'train.py', f'--recipe={tmp_path / "mine.py"}', '--workdir=runs/all')
    assert 0.65 < json.loads((project / 'runs' / 'all' / 'results.json').read_text())['eval']['inside'] < 0.95
    before = list((project / 'benchmarks' / 'results').rglob('*'))
    refused = run(project, '-m', 'benchmarks.collect', 'runs/all', code=2)
    assert refused == 'error: a folder must have the name of a recipe, whose run is kept. Received: runs/all\n'
    assert list((project / 'benchmarks' / 'results').rglob('*')) == before
    run(project, 'train.py', '--model=residual_mlp', '--noexport')
    for command in commands('A result'):
        table = run_command(project, command)
    [row] = re.findall(r'^\| `python train.py --model=residual_mlp` \| accuracy (0\.\d+) \| 360 \|', table,
                       flags=re.MULTILINE)
    assert float(row) > 0.93
