"""The search for the largest batch, on memory that grows like a compiler's: a part that is fixed, and small batches
that cost nothing."""

import random

import pytest

from strategies.preflight.search import largest_batch

LIMIT = 16e9


@pytest.mark.parametrize('seed', range(200))
def test_the_largest_to_a_sixteenth_in_few_tries(seed):
    draw = random.Random(seed)
    fixed, each, free = draw.uniform(0, 1e9), 10 ** draw.uniform(3.5, 9), draw.choice([0, 1e6, 1e8])
    unit, tried = draw.choice([1, 2, 3, 4]), []

    def try_batch(batch):
        needed = fixed + max(0, each * batch - free)
        tried.append((batch, needed <= LIMIT))
        return needed <= LIMIT, needed, LIMIT

    found, true = largest_batch(try_batch, draw.choice([1, 16, 4096]), unit), (LIMIT - fixed + free) / each
    assert found % unit == 0 and found <= true < found * 17 / 16 + unit
    assert (found, True) in tried and len(tried) <= 12


def test_not_even_one():
    assert largest_batch(lambda batch: (False, 20e9 + batch, LIMIT), 128) == 0


def test_memory_that_grows_faster_and_faster_is_never_overshot_by_much():
    """Each try costs the host memory too, so a batch far beyond the limit must not be tried."""
    tried = []

    def try_batch(batch):
        tried.append(batch)
        return 0.01 * batch ** 2.2 <= LIMIT, 0.01 * batch ** 2.2, LIMIT

    true = (LIMIT / 0.01) ** (1 / 2.2)
    found = largest_batch(try_batch, 16)
    assert true * 16 / 17 - 1 <= found <= true and max(tried) <= 40 * true


def test_memory_that_jumps_is_doubled_into():
    tried = []

    def try_batch(batch):
        tried.append(batch)
        needed = LIMIT * (0.9 if batch < 100_000 else 2)      # flat, so that a line through two tries says nothing
        return needed <= LIMIT, needed, LIMIT

    assert 100_000 * 16 / 17 <= largest_batch(try_batch, 1) < 100_000
    assert max(tried) <= 100_000 * 32


def test_no_batch_above_the_bound_is_tried():
    tried = []

    def everything_fits(batch):
        tried.append(batch)
        return True, batch, 10 ** 12
    assert largest_batch(everything_fits, start=8, unit=3, most=1000) == max(tried) <= 1000
    assert max(tried) > 1000 * 15 / 16 - 3
