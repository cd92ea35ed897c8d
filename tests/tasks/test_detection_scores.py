"""Average precision against cases worked out by hand; pycocotools does the work."""

import importlib.util
import sys

import numpy as np
import pytest

from data.dataset import Boxes
from errors import UserError
from tasks.scores.detection import average_precision

NAMES = ('cell', 'nucleus')
needs_pycocotools = pytest.mark.skipif(importlib.util.find_spec('pycocotools') is None,
                                       reason='needs pip install -e ".[vision]"')


def truth_of(*images, most=4):
    """Rows (x0, y0, x1, y1, class[, ignored]) of each image -> [N, most, 6]."""
    truth = np.tile(np.float32(Boxes.PADDING), (len(images), most, 1))
    for i, rows in enumerate(images):
        for k, row in enumerate(rows):
            truth[i, k] = [*row, 0][:6]
    return truth


def found_of(*images, most=5):
    """Rows (x0, y0, x1, y1, class, score) of each image. What is behind the last must not be read."""
    found = {'boxes': np.full((len(images), most, 4), 7., np.float32), 'scores': np.full((len(images), most), .99),
             'classes': np.ones((len(images), most), np.int32), 'count': np.array(list(map(len, images)), np.int32)}
    for i, rows in enumerate(images):
        for k, row in enumerate(rows):
            found['boxes'][i, k], found['classes'][i, k], found['scores'][i, k] = row[:4], row[4], row[5]
    return found


def score(images, answers):
    return average_precision(found_of(*answers), truth_of(*images), NAMES)


FIRST, SECOND = (10, 10, 30, 30, 0), (40, 20, 160, 140, 1)      # areas 400, small, and 14,400, large


@needs_pycocotools
def test_perfect_boxes():
    expected = {'ap': 1, 'ap50': 1, 'ap75': 1, 'ap_small': 1, 'ap_large': 1, 'ap/cell': 1, 'ap/nucleus': 1}
    assert score([[FIRST, SECOND], []], [[(*FIRST, .9), (*SECOND, .2)], []]) == pytest.approx(expected)


@needs_pycocotools
def test_a_shifted_box_counts_where_the_overlap_is_large_enough():
    """20 x 20, shifted by 4: 16 * 20 / (2 * 400 - 320) is an overlap of 0.667: right at 4 of 10 thresholds."""
    values = score([[FIRST]], [[(14, 10, 34, 30, 0, .9)]])
    assert values == pytest.approx({'ap': .4, 'ap50': 1, 'ap75': 0, 'ap_small': .4, 'ap/cell': .4})


@needs_pycocotools
def test_the_end_of_a_box_is_outside():
    """10 x 10 within 10 x 19: 0.526. Were x1 and y1 inside, it would be 11 * 11 / (11 * 20) = 0.55."""
    values = score([[(0, 0, 10, 10, 0)]], [[(0, 0, 10, 19, 0, .9)]])
    assert values['ap'] == pytest.approx(.1)


@needs_pycocotools
def test_wrong_boxes_before_and_behind_the_right_one():
    """The right one is second of two: precision 1/2 at every recall. Behind, wrong ones cost nothing."""
    wrong = (60, 60, 80, 80, 0)
    assert score([[FIRST]], [[(*wrong, .9), (*FIRST, .8)]])['ap'] == pytest.approx(.5)
    assert score([[FIRST]], [[(*wrong, .7), (*FIRST, .8)]])['ap'] == pytest.approx(1)
    assert score([[FIRST]], [[(*FIRST[:4], 1, .9)]])['ap'] == pytest.approx(0)       # the other class
    half = score([[FIRST, wrong]], [[(*FIRST, .9)]])['ap']
    assert half == pytest.approx(51 / 101)                                           # recall 0, .01, ..., .5


@needs_pycocotools
def test_the_first_object_counts():
    """An annotation of id 0 counts as not found: cocoapi #332."""
    assert score([[FIRST], [FIRST]], [[(*FIRST, .9)], [(*FIRST, .8)]])['ap'] == pytest.approx(1)


@needs_pycocotools
def test_no_boxes_and_no_objects():
    assert score([[FIRST], []], [[], []]) == {'ap': 0, 'ap50': 0, 'ap75': 0, 'ap_small': 0, 'ap/cell': 0}
    assert score([[], []], [[], [(*FIRST, .9)]]) == {}
    # A box where there is none of its class is wrong, but there is no average over no object.
    values = score([[FIRST], []], [[(*FIRST, .5)], [(*FIRST, .9), (*SECOND, .9)]])
    assert values['ap'] == pytest.approx(.5) and 'ap/nucleus' not in values


@needs_pycocotools
def test_an_ignored_object_is_neither_missed_nor_wrong_to_find():
    ignored = (*SECOND[:4], 0, 1)
    assert score([[FIRST, ignored]], [[(*FIRST, .5)]])['ap'] == pytest.approx(1)
    assert score([[FIRST, ignored]], [[(*SECOND[:4], 0, .9), (*FIRST, .5)]])['ap'] == pytest.approx(1)


@needs_pycocotools
def test_order_changes_nothing(capfd):
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 100, (12, 4, 2))
    rows = np.concatenate([corner, corner + rng.integers(8, 120, (12, 4, 2)), rng.integers(0, 2, (12, 4, 1))], axis=-1)
    moved = np.concatenate([rows[..., :4] + rng.normal(0, 3, (12, 4, 4)), rows[..., 4:], rng.random((12, 4, 1))], -1)
    expected = score(rows, moved)
    assert 0.05 < expected['ap'] < expected['ap50'] < 1
    images, within = rng.permutation(12), rng.permutation(4)
    assert score(rows[images][:, within], moved[images][:, within[::-1]]) == pytest.approx(expected)
    assert capfd.readouterr().out == ''


def test_without_pycocotools(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pycocotools.coco', None)
    with pytest.raises(UserError, match=r'computed by pycocotools: pip install -e "\.\[vision\]"'):
        score([[FIRST]], [[]])
