"""What a checkpoint takes from training: train.py's loop with `--checkpoint_every` and without it, in turns.

    python -m benchmarks.checkpoint_cost --model=cnn

held up: the loop waits while the state is copied to host memory and checked to be finite (and for the write before, if
         that is not done yet). The write: hashing, the file and fsync, in a thread beside the steps.
taken:   what a checkpoint adds to the loop's time in all, the steps that the write slows down included.

Its share at the default, a checkpoint every 60 seconds, follows from these.
"""

import contextlib
import io
import pathlib
import statistics
import tempfile
import time

from absl import flags

import cli
from errors import UserError
from recipes import DEFAULT

NEVER = 10 ** 9      # as a number of steps


def main():
    model, turns, every, checkpoints = (flags.FLAGS[n].value for n in ('model', 'turns', 'every', 'checkpoints'))
    if model not in DEFAULT:
        raise UserError(f'`model` must be one of {", ".join(DEFAULT)}. Received: model={model!r}')
    for name, value in (('turns', turns), ('every', every), ('checkpoints', checkpoints)):
        if value < 1:
            raise UserError(f'`{name}` must be at least 1. Received: {name}={value}')
    with cli.quiet_tensorflow():
        from training.trainer import CHECKPOINT_SECONDS
    from benchmarks.report import save
    pathlib.Path('runs').mkdir(exist_ok=True)      # the disk of real runs; a temporary folder may be memory
    with tempfile.TemporaryDirectory(dir='runs', prefix='checkpoint_cost-') as folder:
        loop = Loop(model, folder)
        steps = every * (checkpoints + 1)
        times, held_up, writes = {'checkpoints': [], 'none': []}, [], []
        for turn in range(turns + 1):
            for name, period in (('none', NEVER), ('checkpoints', every)):
                measured = loop.turn(steps, period)
                if turn:                           # the first fills caches
                    times[name].append(measured[0])
                    held_up += measured[1]
                    writes += measured[2]
        size = loop.checkpoint_bytes()
    taken = [(a - b) * (steps - 1) / checkpoints for a, b in zip(times['checkpoints'], times['none'])]
    costs = {'held_up': statistics.median(held_up), 'write': statistics.median(writes),
             'taken': statistics.median(taken)}
    share = {name: costs[name] / 1e3 / CHECKPOINT_SECONDS for name in ('held_up', 'taken')}
    save('checkpoint_cost' if model == 'cnn' else f'checkpoint_cost_{model}',
         {'milliseconds_a_step': times, 'checkpoint_every': every, 'bytes': size, 'milliseconds_a_checkpoint': costs,
          'share_at_one_a_minute': share, 'held_up_milliseconds': held_up, 'write_milliseconds': writes,
          'taken_milliseconds': taken}, ratio=('checkpoints', 'none'))
    for name, value in costs.items():
        print(f'{name:<12} {value:12,.3f} milliseconds per checkpoint of {size / 1e6:.1f} MB'
              + (f', {share[name]:.4%} of the time at one per minute' if name in share else ''))


class Loop:
    """A model's default recipe in a Trainer, which trains a number of steps at a time."""

    def __init__(self, model, folder):
        import recipes
        from experiment import parts
        from experiment.workdir import Workdir
        from strategies import selection
        from training import randomness
        _, recipe = recipes.find(model=model)
        recipe = recipe.replace(eval_every=0)
        devices = selection.select('cpu')
        randomness.make_deterministic()
        dataset, task = parts.open_data(recipe)
        self._batches = parts.Batches(recipe, dataset, task, devices.replicas)
        self._trainer, _ = parts.make_trainer(recipe, self._batches.rows, task, devices, Workdir(folder))
        self._trainer.restore(self._batches.fingerprint)
        self._folder = pathlib.Path(folder)
        self._validate = self._trainer.evaluator(*self._batches.evaluation('validation'))
        checkpoints, self._held_up, self._writes = self._trainer.checkpoints, [], []
        self._trainer._save = _timed(self._trainer._save, self._held_up)
        checkpoints._write = _timed(checkpoints._write, self._writes)

    def checkpoint_bytes(self):
        return next((self._folder / 'checkpoints').glob('step-*')).stat().st_size

    def turn(self, steps, period):
        """Trains `steps` steps; the first compiles and is not timed.

        Returns:
            (milliseconds per step, those of each checkpoint for which the loop was held up, those of each write). The
            checkpoint at the end is left out: every run has it.
        """
        from settings import Options
        trainer, options = self._trainer, Options(checkpoint_every=period, log_every=NEVER)
        trainer.total_steps = trainer.step + steps
        trainer._timed_steps, trainer._timed_seconds = 0, 0.
        self._held_up.clear()
        self._writes.clear()
        with contextlib.redirect_stdout(io.StringIO()):
            trainer.train(self._batches.training, self._validate, self._batches.examples, options)
        held_up, writes = self._held_up[:-1], self._writes[:-1]
        return (trainer._timed_seconds * 1e3 + sum(held_up)) / trainer._timed_steps, held_up, writes


def _timed(function, milliseconds):
    """`function`, which also appends how long it took."""
    def timed(*arguments, **keywords):
        started = time.perf_counter()
        result = function(*arguments, **keywords)
        milliseconds.append((time.perf_counter() - started) * 1e3)
        return result
    return timed


def define():
    flags.DEFINE_string('model', 'cnn', f'Model whose default recipe is measured: {", ".join(DEFAULT)}.')
    flags.DEFINE_integer('turns', 6, 'Turns with checkpoints, and as many without.')
    flags.DEFINE_integer('every', 10, 'Steps between checkpoints.')
    flags.DEFINE_integer('checkpoints', 6, 'Checkpoints in a turn, beside the one at its end.')


if __name__ == '__main__':
    cli.run(main, define)
