"""Numbers that are not finite: skipped, rolled back, given up with a report; and what never reaches a checkpoint."""

import json

import numpy as np
import pytest

from errors import RunError, Stopped
from settings import Options, Training
from strategies import selection
from tests.distributed import B, Squares, build, slices
from training.checkpoint import Checkpoints
from training.trainer import Trainer

STEPS, BAD = 12, 5
LOSS = {'loss': 1., 'count': 1}      # what a validation says that never finds anything better


def train(workdir, spoil=None, validate=lambda trainer: LOSS, steps=STEPS, **options):
    """Runs the loop on one device. Returns the trainer."""
    training = Training(batch_size=B, steps=steps, optimizer='adamw', learning_rate=0.05, ema=0.9, eval_every=4)
    trainer = Trainer(training, selection.select('cpu'), Squares(), lambda: build(True), total_steps=steps,
                      workdir=workdir)
    trainer.restore('data')
    workdir.mkdir(exist_ok=True)
    trainer.train(lambda start: slices(start, spoil), lambda: validate(trainer), lambda step: range(step, step + B),
                  Options(steps_per_call=4, checkpoint_every=3, **options))
    return trainer


def corrupted_after(step):
    """A validation, not the first, after which, at `step`, a weight is not finite: memory that lost a bit, say."""
    def validate(trainer):
        if trainer.step == step and not trainer.banned:
            kernel = trainer.model.trainable_variables[0]
            kernel.assign(np.full(kernel.shape, np.nan))
        return LOSS
    return validate


def test_a_rollback_ends_where_a_skip_does(tmp_path):
    skipped = train(tmp_path / 'skip', spoil=BAD)
    rolled = train(tmp_path / 'rollback', spoil=BAD, on_nan='rollback')
    assert rolled.state.sha256() == skipped.state.sha256()
    assert rolled.banned == {BAD} and not skipped.banned
    records = [json.loads(line) for line in (tmp_path / 'rollback' / 'metrics.jsonl').read_text().splitlines()]
    assert [r['step'] for r in records] == sorted(r['step'] for r in records)
    assert sum(r.get('skipped_steps', 0) for r in records) == 1


def test_a_rollback_heals_weights_that_lost_a_bit(tmp_path):
    healed = train(tmp_path / 'rollback', validate=corrupted_after(8), on_nan='rollback')
    assert healed.banned == {8}                # the first step that met the broken weights
    assert healed.state.sha256() == train(tmp_path / 'skip', spoil=8).state.sha256()


@pytest.mark.slow
def test_a_resumed_run_leaves_the_same_batches_out(tmp_path):
    first = train(tmp_path, spoil=BAD, on_nan='rollback')
    assert train(tmp_path, steps=STEPS).banned == first.banned == {BAD}


@pytest.mark.slow
@pytest.mark.parametrize('on_nan', ['skip', 'rollback'])
def test_after_a_limit_the_run_gives_up_with_a_report(tmp_path, on_nan):
    with pytest.raises(RunError, match='the last .* up to step .* not finite; see .*not_finite.json') as error:
        train(tmp_path, spoil=range(4, 99), on_nan=on_nan, nan_limit=3)
    assert '\n' not in str(error.value)
    report = json.loads((tmp_path / 'not_finite.json').read_text())
    bad = report['step']
    assert bad in (6, 7) and report['examples'] == list(range(bad, bad + B))      # a call may run on to step 8
    assert report['loss'] in ('nan', 'inf') and report['not_finite_weights'] == []
    assert set(report['gradient_norms']) == {'m/a/kernel', 'm/n/gamma', 'm/n/beta', 'm/a_2/kernel', 'm/n_2/gamma',
                                             'm/n_2/beta', 'm/b/kernel', 'm/b/bias'}
    assert 'nan' in report['gradient_norms'].values()
    arrays, metadata = Checkpoints(tmp_path / 'checkpoints').newest()
    assert metadata['step'] <= 6 and all(np.isfinite(array).all() for array in arrays.values())


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    with pytest.raises(RunError, match='model/m/a/kernel is not finite, so no checkpoint of step 9 is written'):
        train(tmp_path, validate=corrupted_after(8), nan_limit=99)
    report = json.loads((tmp_path / 'not_finite.json').read_text())
    assert report['step'] == 9 and 'model/m/a/kernel' in report['not_finite']
    assert Checkpoints(tmp_path / 'checkpoints').newest()[1]['step'] == 6


@pytest.mark.parametrize('start', ['new', 'resumed'])
def test_a_run_that_learned_nothing_fails(tmp_path, start):
    """Fewer skipped steps than `nan_limit`, but all there are: also where some were before a resume."""
    if start == 'resumed':
        with pytest.raises(Stopped):
            train(tmp_path, spoil=range(99), max_minutes=1e-9)
        assert 0 < Checkpoints(tmp_path / 'checkpoints').newest()[1]['step'] < STEPS
    with pytest.raises(RunError, match=f'none of the {STEPS} steps had a gradient that is finite.*not_finite.json'):
        train(tmp_path, spoil=range(99))
    assert json.loads((tmp_path / 'not_finite.json').read_text())['step'] == STEPS - 1
    assert all(f.name[5:13] != f'{STEPS:08d}' for f in (tmp_path / 'checkpoints').glob('*'))


def test_one_step_that_was_taken_is_enough(tmp_path):
    train(tmp_path, spoil=range(1, 99))


def test_a_last_loss_that_is_not_finite_fails(tmp_path):
    with pytest.raises(RunError, match=f'the validation loss at the last step, {STEPS}, is not finite; see'):
        train(tmp_path, validate=lambda trainer: {'loss': float('nan'), 'count': 1})


@pytest.mark.slow
def test_gradient_norms_of_a_report_are_those_of_the_mean_loss(tmp_path):
    from training.faults import describe_step
    from training.loop import StepRunner
    trainer = train(tmp_path, steps=2)
    runner = StepRunner(trainer.devices.strategy, trainer.train_step, lambda start: slices(start), 0)
    report = describe_step(trainer.model, runner, lambda step: [7], 1)
    runner.seek(1)
    norm = runner(1).totals['grad_norm'][0]      # of all layers together, from the step itself
    assert norm == pytest.approx(np.sqrt(sum(n ** 2 for n in report['gradient_norms'].values())), rel=1e-5)
    assert report['examples'] == [7] and report['loss'] > 0


@pytest.mark.slow
def test_max_minutes_saves_and_stops(tmp_path):
    with pytest.raises(Stopped, match='stopped by max_minutes; saved at step') as stop:
        train(tmp_path, steps=10 ** 6, max_minutes=0.01)
    assert Checkpoints(tmp_path / 'checkpoints').newest()[1]['step'] == stop.value.step > 0
