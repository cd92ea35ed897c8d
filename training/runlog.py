"""What a person sees and what stays: a progress bar on a terminal or lines in a log, metrics.jsonl, TensorBoard."""

import json
import pathlib
import sys
import time

import tqdm

from training.board import Board
from training.files import write_atomically


class RunLog:
    """Collects the totals of an interval and writes one record of it.

    Args:
        workdir: gets metrics.jsonl and tensorboard/.
        task: divides the totals.
        total_steps, batch_size: for the bar and the throughput.
        start_step: a resumed run's; records after it are rewritten, for those steps are run again.
        sums: what `sums` of the run before was at that step, in the middle of an interval.
        evaluation_due: the evaluation of `start_step` will be run again.
        quiet: writes and prints nothing (workers other than the chief).
    """

    def __init__(self, workdir, task, total_steps, batch_size, start_step=0, sums=(), quiet=False,
                 evaluation_due=False):
        self._workdir, self._task, self._batch_size, self._quiet = pathlib.Path(workdir), task, batch_size, quiet
        self._total_steps, self._board = total_steps, Board(self._workdir / 'tensorboard')
        terminal = sys.stderr.isatty() and not quiet
        self._bar = tqdm.tqdm(total=total_steps, initial=start_step, unit='step', disable=not terminal, leave=False,
                              dynamic_ncols=True, smoothing=0.1)
        self.rewind(start_step, sums, evaluation_due)

    def rewind(self, step, sums=(), evaluation_due=False):
        """Goes back: records after `step` are removed, for those steps are run again."""
        self._clear()
        self.sums = dict(sums)
        self._bar.reset(self._total_steps)
        self._bar.update(step)
        if self._quiet:
            return
        for split, due in (('train', False), ('validation', evaluation_due)):
            self._board.keep(split, lambda event: event.step < step or event.step == step and not due)
        if broken := _keep_records(self._workdir / 'metrics.jsonl', step, evaluation_due):
            self.line(f'warning: {self._workdir / "metrics.jsonl"}: line {broken[0]} is not a record and was dropped' +
                      (f', as were {len(broken) - 1} more' if len(broken) > 1 else ''))

    def add(self, call, seconds, first):
        """Takes what one call did. The first call, which compiles, does not count towards the throughput."""
        for name, (total, weight) in call.totals.items():
            before = self.sums.get(name, (0., 0.))
            self.sums[name] = [before[0] + total, before[1] + weight]
        if not first:
            self._steps, self._seconds = self._steps + call.steps, self._seconds + seconds
            self._waited += call.waited * call.steps       # a sample of one of these steps
        self._bar.update(call.steps)
        now = self._results(call.totals)
        shown = {name: f'{now[name]:.4g}' for name in ('loss', *self._task.training_metrics) if name in now}
        self._bar.set_postfix({**shown, 'examples/s': f'{self.examples_per_second:,.0f}'}, refresh=False)

    @property
    def examples_per_second(self):
        return self._steps * self._batch_size / self._seconds if self._seconds else 0.

    def interval(self, step, learning_rate, train_seconds):
        """Writes the record of the interval that ends at `step`, and starts the next."""
        values = self._results(self.sums)
        skipped = int(self.sums['skipped'][0])
        record = {'step': step, **{k: v for k, v in values.items() if k != 'skipped'}, 'learning_rate': learning_rate,
                  'examples_per_second': round(self.examples_per_second, 1),
                  'data_wait_fraction': round(self._waited / self._seconds, 4) if self._seconds else 0.,
                  'skipped_steps': skipped, 'seconds': round(train_seconds, 3)}
        left = self._seconds / self._steps * (self._total_steps - step) if self._steps else 0.
        self._write('train', record, f'{record["examples_per_second"]:,.0f} examples/s, {_duration(left)} left')
        if skipped:
            steps = int(self.sums['skipped'][1])
            self.line(f'warning: {skipped} of {steps} steps up to step {step} had a gradient that is not finite; '
                      'their updates were skipped')
        self._clear()

    def _results(self, totals):
        """The task's values of those totals that have a weight: a step that was skipped adds none."""
        return self._task.results({name: total for name, total in totals.items() if total[1]})

    def evaluation(self, step, split, values):
        self._write(split, {'step': step, 'split': split, **values}, f'{values["count"]:,} examples')

    def line(self, text):
        """Prints a line, above the bar if there is one."""
        if not self._quiet:
            tqdm.tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()

    def close(self):
        self._bar.close()
        self._board.close()

    def _write(self, kind, record, note):
        if self._quiet:
            return
        with open(self._workdir / 'metrics.jsonl', 'a', encoding='utf-8') as file:
            file.write(json.dumps(record) + '\n')
        self._board.scalars(kind, record['step'], {k: v for k, v in record.items() if k not in ('step', 'count')})
        if kind != 'train' or self._bar.disable:       # a bar already shows the training numbers
            shown = [f'{k} {record[k]:.4f}' for k in record
                     if k in ('loss', *self._task.training_metrics, *self._task.shown)]
            self.line(f'step {record["step"]:>6}/{self._total_steps}  {kind:<10}  ' + '  '.join(shown) + f'  ({note})')

    def _clear(self):
        # {name: [sum, weight]} of the interval so far: a checkpoint holds it, so that a resumed run's records are equal
        self.sums, self._steps, self._seconds, self._waited = {}, 0, 0., 0.


def _keep_records(path, step, evaluation_due):
    """Removes from metrics.jsonl what is written again after `step`, and what is not a record.

    Returns:
        Numbers of the lines that are not records.
    """
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    records = [_record(line) for line in lines]
    kept = [line for line, record in zip(lines, records) if record and (
        record['step'] < step or record['step'] == step and not (evaluation_due and 'split' in record))]
    if kept != lines:
        write_atomically(path, b''.join(kept))
    return [number for number, record in enumerate(records, start=1) if not record]


def _record(line):
    """The record of a line, or None: a power cut leaves half a line, or zeros."""
    try:
        record = json.loads(line)
        return record if line.endswith(b'\n') and isinstance(record['step'], int) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _duration(seconds):
    return time.strftime('%H:%M:%S' if seconds >= 3600 else '%M:%S', time.gmtime(seconds))
