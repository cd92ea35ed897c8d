"""Runs in every format: size, difference from the model, metric, and latency of one example on one core, in turns.

    python -m benchmarks.formats runs/mlp_digits runs/cnn_digits --data_dir=FOLDER

Each is written by export.py, in a temporary folder. Then one process, on one core, asks all formats of a run about one
test example, in turns. Writes the table of docs/deploy.md.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from absl import flags

import cli
from benchmarks.report import RESULTS, write
from errors import RunError, UserError
from experiment import formats
from experiment.workdir import Workdir

PAGE = pathlib.Path(formats.__file__).parents[2] / 'docs' / 'deploy.md'
START, END = '<!-- formats -->', '<!-- /formats -->'
ALL = {'saved_model': {'format': 'saved_model'}} | {
    f'{name}, {kind}' if kind else name: {'format': name, **({'quantize': kind} if kind else {})}
    for name in formats.FORMATS for kind in ('', *formats.QUANTIZED.get(name, ()))}
TOLD = ('accuracy', 'mse', 'exact_match', 'bleu')


def main(runs):
    args = flags.FLAGS
    if not runs or args.turns < 1:
        raise UserError('folders of finished runs are needed, and at least one of `turns`. '
                        f'Received: {" ".join(runs)} --turns={args.turns}')
    if args.latency:
        print(json.dumps(ask(runs[0], pathlib.Path(args.latency), args.data_dir, args.turns)))
        return
    for run in runs:
        Workdir(run).recipe()
    measured = {}
    for run in runs:      # each is written at once: those with long translations take many minutes
        measured[pathlib.Path(run).name] = measure(run, args)
        write('formats', {'runs': measured})
        write_page()


def measure(run, args):
    """{format: what is known of it} of a run."""
    with tempfile.TemporaryDirectory() as temporary:
        folders = {name: pathlib.Path(temporary, name.replace(', ', '_')) for name in ALL}
        found = {name: _export(run, folder, args.data_dir, **ALL[name]) for name, folder in folders.items()}
        asked = json.loads(_python('-m', 'benchmarks.formats', run, f'--latency={temporary}',
                                   f'--data_dir={args.data_dir}', f'--turns={args.turns}', one_core=True))
    found['saved_model'] |= asked['saved_model']
    for name, values in asked['seconds'].items():
        found[name] |= {'milliseconds': statistics.median(values) * 1e3, 'seconds_a_request': values}
        print(f'{run} {name}: {found[name]["milliseconds"]:.2f} ms')
    return found


def _export(run, folder, data_dir, **wanted):
    print(f'{run} {wanted}', flush=True)
    printed = _python('export.py', f'--workdir={run}', f'--output={folder}', f'--data_dir={data_dir}',
                      *(f'--{name}={value}' for name, value in wanted.items()))
    if wanted['format'] == 'saved_model':
        return {'bytes': _size(folder), 'max_difference': float(printed.split()[-1])}
    described = json.loads((folder / formats.DESCRIPTION).read_text())
    first, *_ = described['compared'].values()
    files = next((name for name in described['signatures'] if (folder / f'{name}.xml').exists()
                  or (folder / f'{name}.onnx').exists()), None)
    return {'bytes': sum(file.stat().st_size for file in folder.iterdir() if file.name != formats.DESCRIPTION
                         and file.is_file() and (files is None or file.stem == files)),
            'batch_size': described['batch_size'], 'runtime': described['runtime'], **first,
            'max_difference': max(compared['max_difference'] for compared in described['compared'].values())}


def _size(folder):
    return sum(file.stat().st_size for file in folder.rglob('*') if file.is_file())


def _python(*arguments, one_core=False):
    pin = (lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})) if one_core else None
    done = subprocess.run([sys.executable, *arguments], cwd=PAGE.parents[1], capture_output=True, text=True,
                          preexec_fn=pin)
    if done.returncode:
        raise RunError(f'{" ".join(arguments)}: {done.stderr.strip().splitlines()[-1]}')
    return done.stdout


def ask(run, folder, data_dir, turns):
    """How the SavedModel compares on the test split, and {format: [seconds of a request of one example]}."""
    with cli.quiet_tensorflow():
        import numpy as np
        import tensorflow as tf

        from experiment import trained
        from experiment.formats.convert import compare
        from experiment.formats.plain import Plain
    _, dataset, task, model, _ = trained.load(run, 'newest', data_dir)
    plain, saved = Plain(task, model), tf.saved_model.load(str(folder / 'saved_model')).signatures

    def saved_model(signature, inputs):
        outputs = saved[signature](**{name: tf.constant(array) for name, array in inputs.items()})
        return {name: value.numpy() for name, value in outputs.items()}
    runners = {'saved_model': saved_model}
    for name, wanted in ALL.items():
        if wanted['format'] != 'saved_model':
            module = formats.module_of(wanted['format'])
            runners[name] = module.load(folder / name.replace(', ', '_'), task, threads=1)
    first, *_ = compare(saved_model, plain, task, dataset.test).values()
    inputs = task.served_inputs(dataset.test.gather(tf.zeros([1], tf.int64)))
    signature, specs = next(iter(plain.specs.items()))
    arrays = {spec.name: np.asarray(value) for spec, value in zip(specs, inputs[signature], strict=True)}
    return {'saved_model': first, 'seconds': latencies(runners, signature, arrays, turns)}


def latencies(runners, signature, arrays, turns):
    seconds = {name: [] for name in runners}
    for turn in range(turns + 3):
        for name, run_one in runners.items():
            started = time.perf_counter()
            run_one(signature, arrays)
            if turn >= 3:      # the first ones trace, compile and reserve memory
                seconds[name].append(time.perf_counter() - started)
    return seconds


def table():
    """The table of docs/deploy.md, of the stored results."""
    rows = ['| run | format | batch | size, MB | largest difference | metric: model, format | ms |',
            '|---|---|---|---|---|---|---|']
    for run, found in json.loads((RESULTS / 'formats.json').read_text())['runs'].items():
        for name, one in found.items():
            metrics = '; '.join(f'{metric} {one["model"][metric]:.4f}, {one["format"][metric]:.4f}'
                                for metric in TOLD if metric in one.get('model', {}))
            rows.append(f'| {run} | {name} | {one.get("batch_size", "any")} | {one["bytes"] / 1e6:.2f} | '
                        f'{one["max_difference"]:.1e} | {metrics} | {one["milliseconds"]:.2f} |')
    return '\n'.join(rows)


def write_page():
    before, rest = PAGE.read_text(encoding='utf-8').split(f'{START}\n')
    PAGE.write_text(f'{before}{START}\n{table()}\n{END}{rest.partition(END)[2]}', encoding='utf-8')


def define():
    flags.DEFINE_integer('turns', 50, 'Requests per format.')
    flags.DEFINE_string('data_dir', '', 'Folder of the data sets that the runs need.')
    flags.DEFINE_string('latency', '', 'Folder with all formats of the one run, whose latencies are printed as JSON.')


if __name__ == '__main__':
    cli.run(main, define, arguments=True)
