"""Our gettext German recipe against keras-hub's layers, trained by Keras `fit` for the same time on the same tokens.

    python -m benchmarks.translation
    python -m benchmarks.translation --only_baseline --minutes=1

1. `python train.py --recipe=transformer_gettext_de`, as in docs/translation.md.
2. A model of the same size from keras-hub's layers (translation_fit.py), on the same sentences and subwords, for as
   many seconds of training as the first took, compilation included in both. Its batch size is its own.

Both translate the whole test split; sacrebleu compares with the same references. Trained tokens are those of both
sides, without padding.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

from absl import flags

import cli
from benchmarks.report import write
from errors import RunError, UserError

RECIPE = 'transformer_gettext_de'


def main():
    minutes, only_baseline = flags.FLAGS.minutes, flags.FLAGS.only_baseline
    if minutes < 0 or only_baseline and not minutes:
        rule = 'must be positive with `only_baseline`' if only_baseline else 'must not be negative'
        raise UserError(f'`minutes` {rule}. Received: minutes={minutes:g}')
    with tempfile.TemporaryDirectory() as folder:
        workdir, seconds = pathlib.Path(folder) / 'run', 60 * minutes
        if not only_baseline:
            _run('train.py', f'--recipe={RECIPE}', f'--workdir={workdir}', '--noexport', *_fewer_steps())
            seconds = seconds or json.loads((workdir / 'results.json').read_text())['train_seconds']
        measured = {part: _measure(part, workdir, seconds) for part in (['fit'] if only_baseline else ['ours', 'fit'])}
    for name, row in measured.items():
        row['tokens_per_second'] = row['tokens'] / row['seconds']
        print(line(name, row))
    print(measured['fit']['scores']['bleu_signature'], measured['fit']['scores']['chrf_signature'], sep='\n')
    if only_baseline:
        return
    gain = compare(**measured)
    print('  '.join(f'{name.replace("_", " ")} {value:.3f}' for name, value in gain.items()))
    if not (minutes or flags.FLAGS.steps):
        write('translation', {**gain, **measured})


def compare(ours, fit):
    return {'bleu_difference': ours['scores']['bleu'] - fit['scores']['bleu'],
            'greedy_bleu_difference': ours['greedy']['bleu'] - fit['scores']['bleu'],
            'tokens_per_second_ratio': ours['tokens_per_second'] / fit['tokens_per_second']}


def table(measured):
    """The table of docs/translation.md."""
    ours, fit = measured['ours'], measured['fit']
    rows = {'ours, beam search (4)': (ours['scores'], ours), 'ours, greedy': (ours['greedy'], ours),
            'keras-hub and `fit`, greedy': (fit['scores'], fit)}
    lines = ['| | BLEU | chrF | exact match | steps | minutes | trained tokens/s |', '|---|---|---|---|---|---|---|']
    for name, (scores, row) in rows.items():
        lines.append(f'| {name} | {scores["bleu"]:.2f} | {scores["chrf"]:.2f} | {scores["exact_match"]:.3f} | '
                     f'{row["steps"]:,} | {row["seconds"] / 60:.1f} | {row["tokens_per_second"]:,.0f} |')
    return '\n'.join(lines)


def line(name, row):
    scores = row['scores']
    return (f'{name:<6} BLEU {scores["bleu"]:.2f}  chrF {scores["chrf"]:.2f}  exact match {scores["exact_match"]:.4f}  '
            f'{row["steps"]:,} steps  {row["seconds"]:,.0f} s  {row["tokens"]:,.0f} tokens  '
            f'{row["tokens_per_second"]:,.0f} tokens/s')


def _fewer_steps():
    steps = flags.FLAGS.steps
    return [f'--steps={steps}', '--average_last=0', '--average_every=0'] if steps else []


def _measure(part, workdir, seconds):
    """What translation_fit.py measured of a side."""
    with tempfile.NamedTemporaryFile(suffix='.json') as out:
        _run('-m', 'benchmarks.translation_fit', part, workdir, out.name, seconds)
        return json.load(out)


def _run(*arguments):
    """Raises RunError if the process fails; what it said was shown."""
    command = [sys.executable, *map(str, arguments)]
    if code := subprocess.run(command).returncode:
        raise RunError(f'{" ".join(command[1:3])} failed with exit code {code}')


def define():
    flags.DEFINE_boolean('only_baseline', False, 'Train and measure the second only, for `--minutes`.')
    flags.DEFINE_float('minutes', 0.,
                       'Of the second, to try it out; the results are not kept then. 0 is as long as ours.')
    flags.DEFINE_integer('steps', 0, 'Of our run, to try it out; the results are not kept then. 0 is the recipe\'s.')


if __name__ == '__main__':
    cli.run(main, define)
