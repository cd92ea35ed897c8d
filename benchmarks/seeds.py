"""One recipe by several seeds, one run after the other: what a figure owes to chance.

    python -m benchmarks.seeds --recipe=lstm_digits --seeds=3

Each run is a process of its own, `python train.py --recipe=NAME --seed=N --noexport`, in a temporary folder. Writes
benchmarks/results/seeds_NAME.json after each run, and the table of docs/results.md.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

from absl import flags

import cli
import recipes
from benchmarks import collect
from benchmarks.report import write
from errors import RunError, UserError


def main():
    args = flags.FLAGS
    cli.required('recipe')
    for name, least in (('seeds', 1), ('seed_from', 0)):
        if args[name].value < least:
            raise UserError(f'`{name}` must be at least {least}. Received: {name}={args[name].value}')
    if args.data_dir and not pathlib.Path(args.data_dir).is_dir():
        raise UserError(f'`data_dir` must be a folder. Received: data_dir={args.data_dir!r}')
    name, recipe = recipes.load(args.recipe)
    seeds = range(args.seed_from, args.seed_from + args.seeds)
    recipe.replace(seed=seeds[-1])      # refuses one that is too large before the first run, not after it
    runs = []
    for seed in seeds:
        runs.append(train(args.recipe, seed, args.data_dir))
        record = {'recipe': name, 'commit': collect.commit(), 'spread': spread(runs), 'runs': runs}
        write(f'seeds_{name}', record)
        collect.write_pages()
    print(table(record))


def train(recipe, seed, data_dir):
    """What is kept of the run of one seed."""
    with tempfile.TemporaryDirectory() as folder:
        workdir = pathlib.Path(folder) / 'run'
        command = ['train.py', f'--recipe={recipe}', f'--seed={seed}', '--noexport', f'--workdir={workdir}',
                   *([f'--data_dir={data_dir}'] if data_dir else [])]
        if code := subprocess.run([sys.executable, str(collect.ROOT / command[0]), *command[1:]]).returncode:
            raise RunError(f'{" ".join(command[:3])} ended with exit code {code}; it has said why')
        results = json.loads((workdir / 'results.json').read_text())
    return {'seed': seed, 'eval': results['eval'], 'minutes': results['train_seconds'] / 60,
            'steps': results['steps'], 'weights_sha256': results['weights_sha256'], 'versions': results['versions']}


def spread(runs):
    """{metric or 'minutes': {'mean', 'min', 'max'}} over the runs."""
    values = {name: [run['eval'][name] for run in runs] for name, value in runs[0]['eval'].items()
              if isinstance(value, float) and all(name in run['eval'] for run in runs)}
    values['minutes'] = [run['minutes'] for run in runs]
    return {name: {'mean': statistics.fmean(numbers), 'min': min(numbers), 'max': max(numbers)}
            for name, numbers in values.items()}


def table(record):
    """One line per run, then the mean and the ends of each metric."""
    names = [*collect.shown(record['spread'], but=('loss', 'minutes')), 'minutes']
    lines = [(run['seed'], *((run | run['eval'])[name] for name in names), run['weights_sha256'][:12])
             for run in record['runs']]
    lines += [(of, *(record['spread'][name][of] for name in names), '') for of in ('mean', 'min', 'max')]
    return '\n'.join(f'{line[0]:<6}' + ''.join(f' {value if isinstance(value, str) else f"{value:.4f}":>16}'
                                               for value in line[1:]).rstrip()
                     for line in [('seed', *names, 'weights'), *lines])


def define():
    flags.DEFINE_string('recipe', '', 'Recipe: a name from recipes/, or the path of your own file, mine.py.')
    flags.DEFINE_integer('seeds', 3, 'Number of runs, by consecutive seeds.')
    flags.DEFINE_integer('seed_from', 0, 'First seed.')
    flags.DEFINE_string('data_dir', '', 'Folder of datasets. Without it, the environment variable CONGRUENT_DATA.')


if __name__ == '__main__':
    cli.run(main, define)
