"""Keeps the results and logs of finished runs beside the benchmarks; prints the README table of all that are kept.

    python -m benchmarks.collect runs/cnn_digits runs/mlp_digits
"""

import json
import pathlib
import re
import shutil

import cli
import recipes
from benchmarks.report import RESULTS
from errors import UserError
from workdir import Workdir

# task -> {metric: how the table shows it}; of another task all are shown
METRICS = {'classification': {'accuracy': 'accuracy {:.4f}'}, 'regression': {'mse': 'mse {:.4f}'},
           'translation': {'exact_match': 'exact match {:.4f}', 'bleu': 'BLEU {:.2f}'}}


def main(folders):
    for folder in map(pathlib.Path, folders):
        if folder.name not in recipes.NAMES:
            raise UserError(f'a folder must have the name of a recipe, whose run is kept. Received: {folder}')
        results = Workdir(folder).results()
        if results is None:
            raise UserError(f'{folder} holds no finished run')
        kept = RESULTS / 'runs' / folder.name
        kept.mkdir(parents=True, exist_ok=True)
        results['export_dir'] = None        # a path of the machine that ran it
        (kept / 'results.json').write_text(json.dumps(results, indent=2) + '\n')
        shutil.copy(folder / 'metrics.jsonl', kept)
    print(table())


def stored():
    """{recipe's name: results.json} of the runs that are kept, in order of name."""
    return {file.parent.name: json.loads(file.read_text()) for file in sorted(RESULTS.glob('runs/*/results.json'))}


def table():
    """The README's table of results."""
    rows = ['| command | test metrics | examples | minutes |', '|---|---|---|---|']
    counts = {results['dataset']: results['eval']['count'] for results in stored().values()}
    for name, results in stored().items():
        others = {metric: metric + ' {:.4f}' for metric in results['eval'] if metric not in ('loss', 'count')}
        shown = METRICS.get(results['recipe']['task']['kind'], others)
        metrics = ', '.join(text.format(results['eval'][metric]) for metric, text in shown.items())
        rows.append(f'| `{command(name)}` | {metrics} | {results["eval"]["count"]:,} | '
                    f'{results["train_seconds"] / 60:.1f} |')
    baseline = json.loads((RESULTS / 'text_baseline.json').read_text())
    for name, accuracy in baseline['accuracy'].items():
        rows.append(f'| for comparison, tf-idf and logistic regression on {name}: `{baseline["command"]}` | '
                    f'accuracy {accuracy:.4f} | {counts[name]:,} | |')
    return '\n'.join(rows)


def command(name):
    """The command that a recipe's docstring begins with."""
    text = (pathlib.Path(recipes.__file__).parent / f'{name}.py').read_text(encoding='utf-8')
    return re.search(r'python train.py [^"\n]*', text)[0]


if __name__ == '__main__':
    cli.run(main, lambda: None, arguments=True)
