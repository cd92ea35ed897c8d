"""A signal during an evaluation: it ends there, and the next start evaluates that step as if nothing had happened."""

import json
import os
import signal
import threading

import numpy as np
import pytest

from data.source import Tensors
from errors import Stopped
from settings import Options, Training
from strategies import selection
from tests.distributed import B, Squares, build, evaluated_slices, slices
from training.checkpoint import Checkpoints
from training.trainer import Trainer

STEPS, BATCHES, ENDLESS = 12, 20, 10 ** 9


class Numbers(Squares):
    def answers(self, model, x):
        return ()


def make(workdir, **options):
    training = Training(batch_size=B, steps=STEPS, optimizer='adamw', learning_rate=0.05, ema=0.9, eval_every=4)
    trainer = Trainer(training, selection.select('cpu'), Numbers(), lambda: build(True), total_steps=STEPS,
                      workdir=workdir)
    trainer.restore('data')
    return trainer, Options(log_every=3, **{'checkpoint_every': 5, **options})


def split(trainer, batches):
    return trainer.evaluator(evaluated_slices, batches, Tensors(x=np.zeros(B)))      # which nothing reads here


def train(workdir, stop_at=None, number=signal.SIGTERM, **options):
    """Runs the loop. At `stop_at` the process gets a signal before an evaluation that would never end."""
    trainer, options = make(workdir, **options)
    workdir.mkdir(exist_ok=True)
    endless, finite = split(trainer, ENDLESS), split(trainer, BATCHES)

    def validate():
        if trainer.step != stop_at:
            return finite()
        if number:
            os.kill(os.getpid(), number)
        return endless()
    trainer.train(lambda start: slices(start), validate, lambda step: range(step, step + B), options)
    return trainer


def outcome(workdir, trainer):
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    clock = ('seconds', 'examples_per_second', 'data_wait_fraction')
    best = Checkpoints(workdir / 'checkpoints').best()[1]
    return (trainer.state.sha256(), trainer.best, best['step'], best['best'],
            [{k: v for k, v in line.items() if k not in clock} for line in lines])


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp('whole')
    return outcome(workdir, train(workdir))


@pytest.mark.parametrize('step, number', [(4, signal.SIGTERM), (8, signal.SIGINT), (STEPS, signal.SIGTERM)])
def test_a_stopped_evaluation_is_repeated(tmp_path, whole, step, number):
    with pytest.raises(Stopped, match=f'stopped by {number.name}; saved at step {step};') as stop:
        train(tmp_path, step, number)
    assert (stop.value.cause, stop.value.step) == (number.name, step)
    found = Checkpoints(tmp_path / 'checkpoints').newest()[1]
    assert found['step'] == step and found['evaluation_due']
    with pytest.raises(Stopped):
        train(tmp_path, step, number)                # again, before anything else
    trainer = train(tmp_path)
    assert outcome(tmp_path, trainer) == whole
    files = [f.name[:13] for f in (tmp_path / 'checkpoints').glob('step-*')]
    assert len(files) == len(set(files))             # that of before the evaluation has gone
    assert 'evaluation_due' not in Checkpoints(tmp_path / 'checkpoints').newest()[1]


def test_max_minutes_ends_an_evaluation(tmp_path, whole):
    with pytest.raises(Stopped, match='stopped by max_minutes; saved at step [1-4];'):
        train(tmp_path, 4, number=None, max_minutes=0.05)
    assert outcome(tmp_path, train(tmp_path)) == whole


def test_a_kill_between_an_evaluation_and_its_checkpoint_leaves_one_record(tmp_path, whole):
    with pytest.raises(Stopped):
        train(tmp_path, 8)
    with open(tmp_path / 'metrics.jsonl', 'a') as file:
        file.write('{"step": 8, "split": "validation", "loss": 1.0}\n')
    assert outcome(tmp_path, train(tmp_path)) == whole


def test_a_stop_in_the_call_before_leaves_the_evaluation_out(tmp_path, whole):
    with pytest.raises(Stopped, match='max_minutes'):
        train(tmp_path, 4, number=None, max_minutes=1e-9, steps_per_call=4)
    assert Checkpoints(tmp_path / 'checkpoints').newest()[1]['step'] <= 4
    assert outcome(tmp_path, train(tmp_path)) == whole


def test_the_last_evaluation_stops_too(tmp_path):
    trainer = train(tmp_path)
    before = trainer.state.sha256()
    endless = split(trainer, ENDLESS)
    handler = signal.signal(signal.SIGTERM, signal.SIG_IGN)      # should the timer be faster than the evaluation
    timer = threading.Timer(2., os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        with pytest.raises(Stopped, match='stopped by SIGTERM; what was saved before is there'):
            endless()
    finally:
        timer.join()
        signal.signal(signal.SIGTERM, handler)
    assert trainer.state.sha256() == before          # the weights, not their averages


def test_the_size_of_calls_changes_no_digit(tmp_path, monkeypatch):
    trainer = train(tmp_path)
    values = []
    for seconds in (0., 1e-3, 1e9):                  # one batch in a call, a few, all
        monkeypatch.setattr('training.evaluation.CALL_SECONDS', seconds)
        values.append(split(trainer, 70)())
    assert values[0] == values[1] == values[2]
