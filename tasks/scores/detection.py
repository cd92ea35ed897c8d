"""Average precision of boxes, as COCO computes it (arXiv:1405.0312), by its own program pycocotools.

Not VOC's of 11 points: AP is the mean over 101 points of recall, the classes, and the overlaps .50, .55, ..., .95; at
most 100 boxes per image count.
"""

import contextlib
import io

import numpy as np

from errors import UserError

# metric -> place in COCOeval's `stats`. Small is an area below 32 x 32 pixels, large one from 96 x 96.
STATS = {'ap': 0, 'ap50': 1, 'ap75': 2, 'ap_small': 3, 'ap_medium': 4, 'ap_large': 5}
ABSENT = -1             # of an average over no object


def average_precision(found, truth, names, min_score=None):
    """Boxes of N images -> {metric: value, 0 to 1}.

    Args:
        found: {boxes: float [N, K, 4], scores: float [N, K], classes: int [N, K], count: int [N]}, of which the first
            `count` of an image are boxes. In pixels of the images of `truth`; corners as data.dataset.Boxes has them.
        truth: [N, M, 6], see data.dataset.Boxes.
        names: of the classes. min_score: lowest score of the boxes that `precision` and `recall` count.

    Returns:
        ap, ap50, ap75; ap_small, ap_medium, ap_large by the objects' areas; ap/NAME of each class. precision: the share
        of the boxes of at least `min_score` that are of an object, at an overlap of .50; recall: the share of the
        objects that one of them is of. Without what no object, or no box, is there for.
    """
    evaluation = _evaluate(*_annotations(found, np.asarray(truth, np.float64), len(names)), len(names))
    values = {name: evaluation.stats[place] for name, place in STATS.items()}
    precision = evaluation.eval['precision'][:, :, :, 0, -1]      # [overlaps, recalls, classes], all areas, 100 boxes
    values |= {f'ap/{name}': precision[:, :, number].mean() for number, name in enumerate(names)}
    values = {name: float(value) for name, value in values.items() if value != ABSENT}
    return values | (_at_score(evaluation, min_score) if min_score is not None else {})


def _at_score(evaluation, min_score):
    """precision and recall of the boxes of at least a score, from COCO's own matching at an overlap of .50."""
    whole = evaluation.params.areaRng[0]
    parts = [one for one in evaluation.evalImgs if one and one['aRng'] == whole]
    boxes = right = objects = 0
    for one in parts:
        counts = (np.array(one['dtScores']) >= min_score) & (np.array(one['dtIgnore'])[0] == 0)
        boxes += counts.sum()
        right += (counts & (np.array(one['dtMatches'])[0] > 0)).sum()
        objects += (np.array(one['gtIgnore']) == 0).sum()
    shares = {'precision': (right, boxes), 'recall': (right, objects)}
    return {name: float(part / whole) for name, (part, whole) in shares.items() if whole}


def _annotations(found, truth, classes):
    """(objects, boxes) as COCO's files have them; all ids from 1, as an id of 0 counts as none."""
    objects, boxes = [], []
    for image, rows in enumerate(truth, 1):
        objects += [{**_box(row), 'image_id': image, 'category_id': int(row[4]) + 1, 'iscrowd': int(row[5] > 0)}
                    for row in rows if row[4] >= 0]
    for image, count in enumerate(found['count'], 1):
        part = [np.asarray(found[name][image - 1][:count], np.float64) for name in ('boxes', 'scores', 'classes')]
        boxes += [{**_box(box), 'image_id': image, 'category_id': int(number) + 1, 'score': float(score)}
                  for box, score, number in zip(*part)]
    for annotations in (objects, boxes):
        for number, annotation in enumerate(annotations, 1):
            annotation['id'] = number
    images, categories = ([{'id': i} for i in range(1, count + 1)] for count in (len(truth), classes))
    return tuple({'images': images, 'categories': categories, 'annotations': one} for one in (objects, boxes))


def _box(row):
    x0, y0, x1, y1 = map(float, row[:4])
    return {'bbox': [x0, y0, x1 - x0, y1 - y0], 'area': (x1 - x0) * (y1 - y0)}


def _evaluate(objects, boxes, classes):
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        raise UserError('average precision is computed by pycocotools: pip install -e ".[vision]"') from None
    with contextlib.redirect_stdout(io.StringIO()):       # it prints its progress and a table
        sides = []
        for content in (objects, boxes):
            sides.append(COCO())
            sides[-1].dataset = content
            sides[-1].createIndex()
        evaluation = COCOeval(*sides, 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation
