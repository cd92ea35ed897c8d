"""Keeps the results and logs of finished runs beside the benchmarks; writes the README's table of all of them.

    python -m benchmarks.collect runs/cnn_digits runs/mlp_digits
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

README = pathlib.Path(recipes.__file__).parent.parent / 'README.md'
START, END = '<!-- results -->', '<!-- /results -->'
# task -> {metric: how the table shows it}; of another task all are shown
METRICS = {'classification': {'accuracy': 'accuracy {:.4f}'}, 'regression': {'mse': 'mse {:.4f}'},
           'translation': {'exact_match': 'exact match {:.4f}', 'bleu': 'BLEU {:.2f}'}}


def main(folders):
    for folder in map(pathlib.Path, folders):
        keep(folder)
    write_readme()
    print(table())


def keep(folder):
    """Stores the results and the log of a finished run, with the command and the commit that made it."""
    if folder.name not in recipes.NAMES:
        raise UserError(f'a folder must have the name of a recipe, whose run is kept. Received: {folder}')
    results = Workdir(folder).results()
    if results is None:
        raise UserError(f'{folder} holds no finished run')
    kept = RESULTS / 'runs' / folder.name
    kept.mkdir(parents=True, exist_ok=True)
    # The folder of the export is a path of the machine that ran it.
    results |= {'export_dir': None, 'command': command(folder.name), 'commit': _commit()}
    (kept / 'results.json').write_text(json.dumps(results, indent=2) + '\n')
    shutil.copy(folder / 'metrics.jsonl', kept)


def _commit():
    """The commit of this checkout, with '+' where tracked code differs from it; '' without git."""
    def git(*arguments):
        return subprocess.run(['git', *arguments], cwd=README.parent, capture_output=True, text=True).stdout.strip()
    changed = git('status', '--porcelain', '--untracked-files=no', '--', '*.py')
    return git('rev-parse', 'HEAD') + ('+' if changed else '')


def write_readme():
    """Writes the table into README.md, between its two marks."""
    before, rest = README.read_text(encoding='utf-8').split(f'{START}\n')
    after = rest.partition(END)[2]
    README.write_text(f'{before}{START}\n{table()}\n{END}{after}', encoding='utf-8')


def stored():
    """{recipe's name: results.json} of the runs that are kept, in order of name."""
    return {file.parent.name: json.loads(file.read_text()) for file in sorted(RESULTS.glob('runs/*/results.json'))}


def table():
    """The README's table of results."""
    rows = ['| command | test metrics | examples | minutes |', '|---|---|---|---|']
    counts = {results['dataset']: results['eval']['count'] for results in stored().values()}
    for name, results in stored().items():
        others = {metric: metric + ' {:.4f}' for metric, value in results['eval'].items()
                  if isinstance(value, float) and metric != 'loss'}
        shown = METRICS.get(results['recipe']['task']['kind'], others)
        metrics = ', '.join(text.format(results['eval'][metric]) for metric, text in shown.items())
        rows.append(f'| `{command(name)}` | {metrics} | {results["eval"]["count"]:,} | '
                    f'{results["train_seconds"] / 60:.1f} |')
    baseline = json.loads((RESULTS / 'text_baseline.json').read_text())
    for name, accuracy in baseline['accuracy'].items():
        rows.append(f'| for comparison, tf-idf and logistic regression on {name}: '
                    f'`CONGRUENT_DATA=FOLDER {baseline["command"]}` | '
                    f'accuracy {accuracy:.4f} | {counts[name]:,} | |')
    return '\n'.join(rows)


def command(name):
    """The command that a recipe's docstring begins with."""
    text = (pathlib.Path(recipes.__file__).parent / f'{name}.py').read_text(encoding='utf-8')
    return re.search(r'python train.py [^"\n]*', text)[0]


if __name__ == '__main__':
    cli.run(main, lambda: None, arguments=True)
