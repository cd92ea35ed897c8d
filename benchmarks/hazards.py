"""What Keras's `model.fit` does under tf.distribute, and what our loop does, in the same cases.

    python -m benchmarks.hazards

Each case runs on one device and on two logical ones of the CPU; the last one in two processes. Everything in the table,
that of docs/devices.md, is measured by this command, except the names of its rows.
"""

import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile

import numpy as np
from absl import flags

import cli
from benchmarks.report import RESULTS
from errors import RunError
from strategies import workers

WORKERS = 2
PARTS = ('fit', 'fit_xla', 'ours', 'workers')      # in processes of their own

# row -> (hazard, what fit does, what we do); the fields are what was measured, on `one` device and on `two`.
ROWS = {
    'clipping': (
        'the global norm is clipped before the all-reduce',
        'one step: w = {one:.3f} on 1 device, {two:.3f} on 2',
        'w = {one:.3f} on 1 device, {two:.3f} on 2'),
    'dropout': (
        'all replicas draw the same dropout mask',
        'masks of two examples alike in {one} of {units} units on 1 device, {two} on 2',
        'in {one} on 1 device, {two} on 2, and {as_one} of {elements} elements are those of 1 device'),
    'accumulation': (
        '`gradient_accumulation_steps` crashes',
        '1 device: {one}; 2 devices: `{two}`',
        'after {steps} steps of Adam, accumulated and not, weights differ by {one:.0e} on 1 device, {two:.0e} on 2'),
    'overflow': (
        'float16 overflows on one replica alone',
        'on the first: w = {first}; on the second: w = {second} (1 device: {one})',
        'w = {first}; w = {second} (1 device: {one}); skipped: {skipped_first:g} and {skipped_second:g} of the steps'),
    'partial': (
        'a partial batch, or one padded unevenly, is weighted wrong',
        '9 rows in batches of 8: w = {one:.3f} on 1 device, {two:.3f} on 2; a padded batch, '
        '`mean_with_sample_weight`: `evaluate` gives {loss_one:.4f} on 1, {loss_two:.4f} on 2',
        'w = {one:.3f} on 1 device, {two:.3f} on 2; {loss_one:.4f} on 1, {loss_two:.4f} on 2'),
    'batch_norm': (
        'BatchNormalization, by default, saves the moving statistics of the first replica alone',
        'moving means {means_two[0]:.3f} and {means_two[1]:.3f}; loss {trained_two:.4f}, once saved and loaded '
        '{loaded_two:.4f} (1 device: {trained_one:.4f}, {loaded_one:.4f})',
        'normalised by the rows of all: {means_two[0]:.3f} and {means_two[1]:.3f}; {trained_two:.4f}, {loaded_two:.4f} '
        '(1 device: {trained_one:.4f}, {loaded_one:.4f}); Keras\'s layer is refused: {refused}'),
    'xla': (
        '`jit_compile=True` crashes',
        '1 device: {one}; 2 devices: `{two}`',
        'XLA inside the replica: with and without it weights differ by {one:.0e} on 1 device, {two:.0e} on 2'),
    'resume': (
        'a resumed run is not the run that never stopped',
        'BackupAndRestore, stopped between epochs: weights differ by {one:.3f} on 1 device, {two:.3f} on 2',
        'SIGTERM within an epoch: weights and optimizer differ by {one:g} on 1 device, {two:g} on 2'),
    'workers': (
        'MultiWorkerMirroredStrategy, on 2 processes, crashes',
        '`{outcomes[0]}`',
        'weights differ by {from_one_process:.0e} from one process\'s, by {between_workers:g} between the two'),
}


def main():
    if flags.FLAGS.part:
        _measure_part(flags.FLAGS.part, pathlib.Path(flags.FLAGS.folder))
        return
    measured = measure()
    print(table(measured))
    record = {'command': 'python -m benchmarks.hazards', 'measured': measured,
              'machine': f'{os.cpu_count()} x {platform.machine()} CPU', 'python': platform.python_version(),
              'versions': {package: importlib.metadata.version(package)
                           for package in ('tensorflow', 'keras', 'numpy')}}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / 'hazards.json').write_text(json.dumps(record, indent=1) + '\n')


def table(measured):
    """{row: {'fit': values, 'ours': values}} -> the table of docs/devices.md."""
    lines = ['| hazard | what `model.fit` does | what we do |', '|---|---|---|']
    for row, (hazard, fit, ours) in ROWS.items():
        lines.append(f'| {hazard} | {fit.format(**measured[row]["fit"])} | {ours.format(**measured[row]["ours"])} |')
    return '\n'.join(lines)


def measure():
    """Runs all parts, one after the other. Returns {row: {'fit': values, 'ours': values}}."""
    with tempfile.TemporaryDirectory() as folder:
        said = {part: _run_part(part, pathlib.Path(folder) / part) for part in PARTS}
    (fit,), (fit_xla,), ((ours, one_process),) = said['fit'], said['fit_xla'], said['ours']
    fit['xla'] = fit_xla
    return ({row: {'fit': fit[row], 'ours': values} for row, values in ours.items()}
            | {'workers': _compare(said['workers'], one_process)})


def _compare(of_workers, one_process):
    """What each worker measured, and the weights of one process -> the values of the row `workers`."""
    weights = np.array([worker['ours'] for worker in of_workers])
    return {'fit': {'outcomes': [worker['fit'] for worker in of_workers]},
            'ours': {'from_one_process': float(np.max(np.abs(weights - one_process))),
                     'between_workers': float(np.max(np.ptp(weights, axis=0)))}}


def _run_part(part, folder):
    """Returns what each process of a part measured.

    Raises:
        RunError: one failed. What it said was shown.
    """
    folder.mkdir()
    command = [sys.executable, '-m', 'benchmarks.hazards', f'--part={part}', f'--folder={folder}']
    print(f'measuring: {part}', file=sys.stderr, flush=True)
    if part == 'workers':
        code = workers.launch(command, WORKERS)
    else:
        code = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
    if code:
        raise RunError(f'{" ".join(command[1:4])} failed with exit code {code}')
    return [json.loads(file.read_text()) for file in sorted(folder.iterdir())]


def _measure_part(part, folder):
    os.environ['CUDA_VISIBLE_DEVICES'] = ''      # workers of one machine would fight for its GPUs
    with cli.quiet_tensorflow():
        from benchmarks import hazards_fit, hazards_ours
        from strategies import selection

    def of_worker():
        devices = selection.select('multiworker')
        # fit comes last: nothing is promised of a process after its error.
        return {'ours': hazards_ours.measure_worker(devices), 'fit': hazards_fit.measure_worker(devices)}

    measure = {'fit': hazards_fit.measure, 'fit_xla': hazards_fit.measure_xla, 'ours': hazards_ours.measure,
               'workers': of_worker}[part]
    (folder / f'{os.getpid()}.json').write_text(json.dumps(measure()))


def define():
    flags.DEFINE_enum('part', None, PARTS, 'Measure one part in this process; the command starts one for each itself.')
    flags.DEFINE_string('folder', '', 'Where a part writes what it measured.')


if __name__ == '__main__':
    cli.run(main, define)
