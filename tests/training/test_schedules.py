import math

import pytest

from errors import UserError
from settings import Training
from training.optimizer import make_schedule
from training.schedules import Warmup


def rate(schedule, update):
    return float(schedule(update))


def test_warmup_is_linear_then_constant():
    schedule = Warmup(0.5, warmup_steps=10)
    assert [rate(schedule, n) for n in (0, 4, 9, 10, 500)] == pytest.approx([0.05, 0.25, 0.5, 0.5, 0.5])


def test_cosine_against_its_closed_form():
    schedule = Warmup(0.3, warmup_steps=5, decay='cosine', total_steps=105)
    for n in range(5, 105, 7):
        assert rate(schedule, n) == pytest.approx(0.3 * (1 + math.cos(math.pi * (n + 1 - 5) / 100)) / 2, abs=1e-7)
    assert rate(schedule, 104) == pytest.approx(0., abs=1e-7)
    assert rate(schedule, 1000) == pytest.approx(0., abs=1e-7)


def test_linear_falls_to_zero_at_the_end():
    schedule = Warmup(0.3, warmup_steps=5, decay='linear', total_steps=105)
    for n in range(5, 105, 7):
        assert rate(schedule, n) == pytest.approx(0.3 * (1 - (n + 1 - 5) / 100), abs=1e-7)
    assert [rate(schedule, n) for n in (4, 54, 104, 1000)] == pytest.approx([0.3, 0.15, 0, 0], abs=1e-7)


def test_inverse_sqrt_is_the_transformers_schedule():
    d_model, warmup = 512, 4000                       # arXiv:1706.03762, equation 3
    schedule = Warmup(d_model ** -0.5 * warmup ** -0.5, warmup, 'inverse_sqrt')
    for n in (1, 10, 3999, 4000, 4001, 100_000):
        paper = d_model ** -0.5 * min(n ** -0.5, n * warmup ** -1.5)
        assert rate(schedule, n - 1) == pytest.approx(paper, rel=1e-5)


def test_config_holds_every_argument():
    schedule = Warmup(0.3, 5, 'cosine', 105)
    copy = Warmup.from_config(schedule.get_config())
    assert [rate(copy, n) for n in (0, 50)] == [rate(schedule, n) for n in (0, 50)]


@pytest.mark.parametrize('arguments, message', [
    ({'decay': 'step'}, '`decay` must be constant, cosine, linear or inverse_sqrt. Received: decay=\'step\''),
    ({'decay': 'linear', 'warmup_steps': 9, 'total_steps': 9}, '`total_steps` must exceed `warmup_steps` for a linear'),
    ({'decay': 'cosine', 'warmup_steps': 9, 'total_steps': 9}, '`total_steps` must exceed `warmup_steps`'),
])
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        Warmup(0.1, **arguments)


def test_a_warm_up_that_is_longer_than_the_run_names_the_flag():
    with pytest.raises(UserError, match='`warmup_steps` must be below the length of the run, 5 steps, for the schedule '
                                        'cosine. Received: warmup_steps=5'):
        make_schedule(Training(schedule='cosine', warmup_steps=5, steps=5), 5)
