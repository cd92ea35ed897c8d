"""Scores of masks against a loop over all pixels."""

import numpy as np
import pytest

from data.dataset import Mask
from tasks.scores.segmentation import confusion_matrix, segmentation_scores

NAMES = ('sky', 'road', 'car', 'tree')


def by_loop(truth, answers):
    """{class: (pixels of it in both, in either)}, (right, all)."""
    both, either, right, count = [0] * 4, [0] * 4, 0, 0
    for t, a in zip(truth.flat, answers.flat):
        if t == Mask.void:
            continue
        count += 1
        right += int(t == a)
        for k in range(4):
            both[k] += int(t == k and a == k)
            either[k] += int(t == k or a == k)
    return both, either, right, count


@pytest.mark.parametrize('present', [(0, 1, 2, 3), (0, 2), (1,)])
def test_scores_are_those_of_a_loop(present):
    rng = np.random.default_rng(len(present))
    truth = rng.choice(np.uint8([*present, Mask.void]), (3, 7, 5))
    answers = np.where(rng.random(truth.shape) < .6, truth, rng.choice(np.uint8([0, *present]), truth.shape))
    answers[truth == Mask.void] = rng.integers(0, 4)                   # a model writes no void
    both, either, right, count = by_loop(truth, answers)
    expected = {f'iou/{NAMES[k]}': both[k] / either[k] for k in range(4) if either[k]}
    scores = segmentation_scores(sum(confusion_matrix(*pair, 4) for pair in zip(truth, answers)), NAMES)
    assert scores == pytest.approx({**expected, 'mean_iou': np.mean(list(expected.values())),
                                    'pixel_accuracy': right / count})


def test_a_class_that_is_only_answered_counts_as_missed():
    scores = segmentation_scores(confusion_matrix([0, 0, 0, 0], [0, 0, 0, 3], 4), NAMES)
    assert scores == {'mean_iou': .375, 'pixel_accuracy': .75, 'iou/sky': .75, 'iou/tree': 0.}


def test_nothing_but_void():
    confusion = confusion_matrix(np.full((2, 2), Mask.void), np.zeros((2, 2)), 4)
    assert confusion.dtype == np.int64 and not confusion.any() and segmentation_scores(confusion, NAMES) == {}


def test_counts_are_exact_beyond_float32():
    confusion = np.array([[2 ** 40 + 1, 0], [0, 1]])
    assert segmentation_scores(confusion, ('a', 'b'))['mean_iou'] == 1.
