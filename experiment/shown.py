"""What TensorBoard shows of a run beside its curves, which training/runlog.py writes.

At its start: the recipe, as text and as hyperparameters, and what the model is trained on. At its end: the test's
figures and what the model answered. The hyperparameters are in the folder `test`, so that the tab HParams has these
figures for its metrics, and no others.
"""

import contextlib

from tensorboard.plugins.hparams import api_pb2, summary

from experiment.trained import inference_model
from tasks.task import SHOWN
from training.board import Board, printable


def start(workdir, recipe, task, batches, step):
    """Writes what is known before the first step, or again what is known at a resume from a step."""
    with _board(workdir) as board:
        board.keep('test', lambda event: False)         # written anew at the end of each start
        if not step:
            for split in ('train', 'validation'):       # of a start that was stopped before its first checkpoint
                board.keep(split, lambda event: False)
            code = ''.join(f'    {line}' for line in recipe.to_json().splitlines(keepends=True))
            x, *_ = batches.first(SHOWN)
            board.show('train', 0, {'recipe': code, **task.show_inputs(x)})
        board.summary('test', summary.session_start_pb(hyperparameters(recipe)))


def end(workdir, recipe, trainer, source, values):
    """Writes the results of the last step. source: the test split. values: of the evaluation on it."""
    with trainer.devices.on_host():
        model = inference_model(recipe, trainer.task, trainer.state.arrays())
        answers = trainer.task.show_answers(model, source)
    with _board(workdir) as board:
        board.scalars('test', trainer.step, {name: value for name, value in values.items() if name != 'count'})
        board.show('test', trainer.step, answers)
        board.summary('test', summary.session_end_pb(api_pb2.STATUS_SUCCESS))


def hyperparameters(recipe):
    """{name: value} of a recipe's fields that have a value, and its kinds of model and task."""
    values = {'model': recipe.model.kind, 'task': recipe.task.kind, **recipe.values()}
    return {name: printable(value) if isinstance(value, str) else value for name, value in values.items()
            if value is not None}


def _board(workdir):
    return contextlib.closing(Board(workdir.path / 'tensorboard'))
