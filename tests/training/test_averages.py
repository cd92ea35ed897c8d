"""The mean of the last checkpoints' weights: which they are, what it is, and that a resumed run has the same one."""

import shutil

import numpy as np
import pytest

from errors import UserError
from settings import Options, Training
from strategies import selection
from tests.distributed import B, Squares, build, slices
from training.checkpoint import Checkpoints
from training.state import inference_arrays
from training.trainer import Trainer, averaged_checkpoints

STEPS, EVERY, LAST = 14, 4, 2      # the checkpoints of steps 8 and 12; the run resumes and ends at 14


def train(workdir):
    training = Training(batch_size=B, steps=STEPS, optimizer='adamw', average_last=LAST, average_every=EVERY)
    trainer = Trainer(training, selection.select('cpu'), Squares(), lambda: build(True), total_steps=STEPS,
                      workdir=workdir)
    trainer.restore('data')
    workdir.mkdir(exist_ok=True)
    seen = []

    def validate():
        with trainer.state.averaged():
            seen.append({v.path: np.array(v) for v in trainer.model.weights})
        return {'loss': 1., 'count': 1}
    trainer.train(slices, validate, lambda step: range(step, step + B), Options(checkpoint_every=2))
    return trainer, seen[-1]


@pytest.mark.parametrize('total, expected', [(14, {8: 1, 12: 2}), (12, {8: 1, 12: 2}), (5, {4: 1}), (3, {})])
def test_the_last_multiples_are_averaged(total, expected):
    training = Training(steps=total, average_last=LAST, average_every=EVERY)
    found = {step: averaged_checkpoints(training, step, total) for step in range(1, total + 1)}
    assert {step: count for step, count in found.items() if count} == expected
    assert averaged_checkpoints(Training(steps=total), total, total) == 0


def test_the_mean_of_the_checkpoints_is_evaluated_and_exported_and_the_same_after_a_resume(tmp_path):
    trainer, evaluated = train(tmp_path / 'whole')
    # Its checkpoints of steps 10, 12 and 14 are there. A run that resumes at 10, between the two, makes that of 12.
    (tmp_path / 'resumed' / 'checkpoints').mkdir(parents=True)
    for file in (tmp_path / 'whole' / 'checkpoints').glob('step-00000010-*'):
        shutil.copy(file, tmp_path / 'resumed' / 'checkpoints')
    resumed, _ = train(tmp_path / 'resumed')
    assert resumed.state.sha256() == trainer.state.sha256()

    at = {step: Checkpoints(tmp_path / 'whole' / 'checkpoints').at(step)[0] for step in (10, 12, 14)}
    for variable in trainer.model.trainable_variables:
        weights, mean = f'model/{variable.path}', f'average/{variable.path}'
        of_8 = at[10][mean]                        # the mean of one
        np.testing.assert_allclose(at[14][mean], (of_8 + at[12][weights]) / 2, rtol=1e-6, atol=1e-8)
        assert not np.array_equal(of_8, at[12][weights])
        np.testing.assert_array_equal(evaluated[variable.path], at[14][mean])
        np.testing.assert_array_equal(inference_arrays(at[14])[weights], at[14][mean])
        np.testing.assert_array_equal(np.array(variable), at[14][weights])        # training keeps its own


@pytest.mark.parametrize('overrides, message', [
    ({'average_last': 2}, '`average_every` and `average_last` .2. go together. Received: average_every=0'),
    ({'average_last': 2, 'average_every': 5, 'ema': 0.9}, '`ema` and `average_last` .2. exclude each other'),
])
def test_settings_that_contradict_each_other(overrides, message):
    with pytest.raises(UserError, match=message):
        Training(steps=10, **overrides)
