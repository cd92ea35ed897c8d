"""The largest batch that fits, by trying: memory grows with the batch, but neither smoothly nor by a known amount."""

import bisect
import math

GROWTH = 32      # a guess is at most this many times the last batch: small ones live in VMEM and say little
GUESSES = 4      # then at least doubling, until one does not fit, and halving, which always ends


def largest_batch(try_batch, start, unit=1, most=math.inf):
    """The largest batch that fits, to one in sixteen, or 0 if not even `unit` does. It, and the next, was tried.

    Args:
        try_batch: function (batch) -> (whether it fits, bytes it needs, bytes there are).
        start: where to begin. unit: batches are multiples of it. most: an upper bound.
    """
    batches = [unit * size for size in _sizes() if unit * size <= most]
    low, high = -1, len(batches)
    last, tries, i = (0, 0), 0, max(0, bisect.bisect_right(batches, start) - 1)
    while high - low > 1:
        held, needed, limit = try_batch(batches[i])
        low, high = (i, high) if held else (low, i)
        guess, last = _guess(last, (batches[i], needed), limit), (batches[i], needed)
        tries += 1
        if tries >= GUESSES:
            guess = max(guess, 2 * batches[low]) if high == len(batches) else batches[(low + high) // 2]
        i = bisect.bisect_right(batches, guess) - 1
        i = min(max(i, low + 1), high - 1)
    return batches[low] if low >= 0 else 0


def _guess(before, last, limit):
    """Where the line through two tries, (batch, bytes) each, meets the limit."""
    slope = (last[1] - before[1]) / (last[0] - before[0]) if last[0] != before[0] else 0
    straight = last[0] + (limit - last[1]) / slope if slope > 0 else GROWTH * last[0]
    return min(straight, GROWTH * last[0])


def _sizes():
    """1, 2, ... 31, 32, 34, ... 62, 64, 68, ...: steps of a sixteenth or less, up to more than anyone trains with."""
    return list(range(1, 16)) + [m << e for e in range(20) for m in range(16, 32)]
