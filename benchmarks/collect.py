"""Keeps the results and logs of finished runs beside the benchmarks; writes the tables of them.

    python -m benchmarks.collect runs/cnn_digits runs/mlp_digits

docs/results.md has every stored result; README.md has each model's default recipe.
"""

import json
import pathlib
import re
import shutil
import subprocess

import cli
import recipes
from benchmarks.report import RESULTS
from errors import UserError
from experiment.workdir import Workdir

ROOT = pathlib.Path(recipes.__file__).parent.parent
START, END = '<!-- results -->', '<!-- /results -->'
WEIGHTS = 'MODEL'      # in a command, a folder of weights that are not trained here
# metric -> how the tables show it. A task that has none of them shows all its numbers.
METRICS = {'accuracy': 'accuracy {:.4f}', 'mse': 'mse {:.4f}', 'exact_match': 'exact match {:.4f}',
           'bleu': 'BLEU {:.2f}', 'mean_iou': 'mean IoU {:.4f}', 'pixel_accuracy': 'pixel accuracy {:.4f}',
           'ap': 'AP {:.4f}', 'ap50': 'AP50 {:.4f}'}
HEAD = ['| command | test metrics | examples | minutes |', '|---|---|---|---|']


def main(folders):
    for folder in map(pathlib.Path, folders):
        keep(folder)
    write_pages()
    print(all_tables())


def keep(folder):
    """Stores the results and the log of a finished run, with the command and the commit that made it."""
    if folder.name not in recipes.NAMES:
        raise UserError(f'a folder must have the name of a recipe, whose run is kept. Received: {folder}')
    results = Workdir(folder).results()
    if results is None:
        raise UserError(f'{folder} holds no finished run')
    kept = RESULTS / 'runs' / folder.name
    kept.mkdir(parents=True, exist_ok=True)
    # Folders of an export, and of weights, are paths of the machine that ran it.
    results |= {'export_dir': None, 'command': command(folder.name), 'commit': commit()}
    if results['recipe']['model'].get('weights'):
        results['recipe']['model']['weights'] = WEIGHTS
    (kept / 'results.json').write_text(json.dumps(results, indent=2) + '\n')
    shutil.copy(folder / 'metrics.jsonl', kept)


def commit():
    """The commit of this checkout, with '+' where tracked code differs from it; '' without git."""
    def git(*arguments):
        return subprocess.run(['git', *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    changed = git('status', '--porcelain', '--untracked-files=no', '--', '*.py')
    return git('rev-parse', 'HEAD') + ('+' if changed else '')


def write_pages():
    """Writes the tables into README.md and docs/results.md, between their two marks."""
    for page, text in pages().items():
        before, rest = page.read_text(encoding='utf-8').split(f'{START}\n')
        page.write_text(f'{before}{START}\n{text}\n{END}{rest.partition(END)[2]}', encoding='utf-8')


def pages():
    """{file: the tables between its marks}."""
    return {ROOT / 'README.md': default_table(), ROOT / 'docs' / 'results.md': all_tables()}


def stored():
    """{recipe's name: results.json} of the runs that are kept, in order of name."""
    return {file.parent.name: json.loads(file.read_text()) for file in sorted(RESULTS.glob('runs/*/results.json'))}


def default_table():
    """The README's table: the default recipes that have a stored run, in the order of the models."""
    runs = stored()
    return '\n'.join([*HEAD, *(row(name, runs[name]) for name in recipes.DEFAULT.values() if name in runs)])


def all_tables():
    """The tables of docs/results.md, one per task: runs in order of name, then what they are compared with."""
    rows, runs = {}, stored()
    for name, results in runs.items():
        rows.setdefault(results['recipe']['task']['kind'], []).append(row(name, results))
    for task, compared in comparisons(runs).items():
        rows.setdefault(task, []).extend(compared)
    tables = [[f'## {task.replace("_", " ").capitalize()}', *HEAD, *rows[task]] for task in sorted(rows)]
    return '\n\n'.join(map('\n'.join, tables + spreads()))


def spreads():
    """The table of recipes that ran by several seeds, as lines; none where no such runs are kept."""
    lines = []
    for record in (json.loads(file.read_text()) for file in sorted(RESULTS.glob('seeds_*.json'))):
        found, seeds = record['spread'], [run['seed'] for run in record['runs']]
        metrics = ', '.join(f'{name} {number} ({number} to {number})'.format(*found[metric].values())
                            for metric in shown(found, but=('loss', 'minutes'))
                            for name, number in [METRICS.get(metric, f'{_words(metric)} {{:.4f}}').rsplit(' ', 1)])
        lines.append(f'| `{_asked(record)}` | {metrics} | {seeds[0]} to {seeds[-1]} | {found["minutes"]["mean"]:.1f} |')
    head = ['## Several seeds', '| command | test metrics: mean (least to largest) | seeds | minutes each |', HEAD[1]]
    return [head + lines] if lines else []


def row(name, results):
    """A recipe's line of a table."""
    return _row(f'`{command(name)}`', results['eval'], results['eval']['count'], results['train_seconds'])


def comparisons(runs):
    """{task: lines of what its runs are compared with}, where the data set has a stored run."""
    counts = {results['dataset']: results['eval']['count'] for results in runs.values()}
    baseline = json.loads((RESULTS / 'text_baseline.json').read_text())
    title = 'for comparison, tf-idf and logistic regression on {}: `CONGRUENT_DATA=FOLDER {}`'
    rows = [_row(title.format(name, baseline['command']), {'accuracy': accuracy}, counts[name])
            for name, accuracy in baseline['accuracy'].items()]
    if (file := RESULTS / 'cifar_fit.json').exists():
        fit = json.loads(file.read_text())
        rows.append(_row(f'for comparison, keras.io\'s ResNet-20 by `model.fit` on cifar10: `{_asked(fit)}`',
                         {'accuracy': fit['accuracy']}, fit['count'], fit['seconds']))
    return {'classification': rows}


def _asked(record):
    """The command of a benchmark, with the folder of data sets as the pages name it."""
    return re.sub(r'--data_dir=\S+', '--data_dir=FOLDER', record['command'])


def shown(values, but=('loss',)):
    """The metrics that the tables show of {name: value}: those of METRICS, else all but some."""
    return [metric for metric in METRICS if metric in values] or [
        metric for metric, value in values.items() if not isinstance(value, (int, str)) and metric not in but]


def _row(what, values, count, seconds=None):
    metrics = ', '.join(METRICS.get(metric, f'{_words(metric)} {{:.4f}}').format(values[metric])
                        for metric in shown(values))
    minutes = '' if seconds is None else f'{seconds / 60:.1f} '
    return f'| {what} | {metrics} | {count:,} | {minutes}|'


def _words(metric):
    return metric.replace('_', ' ')


def command(name):
    """The command that a recipe's docstring begins with."""
    text = (pathlib.Path(recipes.__file__).parent / f'{name}.py').read_text(encoding='utf-8')
    return re.search(r'python train.py [^"\n]*', text)[0]


if __name__ == '__main__':
    cli.run(main, lambda: None, arguments=True)
