"""What all layouts of images with boxes have in common, once they are read: voc.py, coco.py, box_lines.py.

A box is (x0, y0, x1, y1), in pixels, x1 and y1 just outside, see data.dataset.Boxes. One that reaches beyond its image
is cut at the edge; one without an area, there or as it was given, is left out; the data set's origin counts both. Where
most reach beyond their images, they are no such boxes, and that is an error.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from data.dataset import Boxes, Dataset
from data.source import hash_arrays
from data.sources.folders import check_not_empty
from data.sources.pictures import Pictures, image_field, picture_size
from errors import UserError

SLACK = 1      # pixels by which a box may reach beyond its image before it is counted: annotation tools round


@dataclasses.dataclass
class Annotated:
    """An image file and its objects.

    place: what describes it, for messages: a file, or a file and a line. size: (width, height) as written there, or
    None. objects: [((x0, y0, x1, y1), class name, ignored)].
    """

    file: Path
    place: Any
    objects: list
    size: Any = None


class BoxLists:
    """Gathers boxes: int64 [B] -> float32 [B, most, 6]. boxes: [float32 [n, 6]] of each image."""

    def __init__(self, boxes, most):
        with tf.device('CPU:0'):
            self._boxes = tf.RaggedTensor.from_row_lengths(np.concatenate([*boxes, np.zeros((0, 6), np.float32)]),
                                                           [len(one) for one in boxes])
        self._most = most

    def __call__(self, indices):
        boxes = tf.gather(self._boxes, indices)
        return boxes.to_tensor(default_value=tf.constant(Boxes.PADDING), shape=[indices.shape[0], self._most, 6])


def check_box(place, box):
    """Returns a box of finite numbers whose left and upper edge come first, or raises UserError."""
    x0, y0, x1, y1 = box
    if not all(map(math.isfinite, box)) or x1 < x0 or y1 < y0:
        raise UserError(f'`dataset` {place}: a box must be of finite numbers, its left and upper edge first. '
                        f'Received: x from {x0:g} to {x1:g}, y from {y0:g} to {y1:g}')
    return box


def boxed_dataset(name, folder, splits, names=None):
    """The data set of {split: [Annotated]}.

    names: of the classes, by number; by default those that train has, sorted.

    Raises:
        UserError: a split is empty, has a class that train has not, an image is not what its annotation says.
    """
    check_not_empty(folder, splits, 'images')
    names = names or sorted({class_name for one in splits['train'] for _, class_name, _ in one.objects})
    if not names:
        raise UserError(f'`dataset` {folder} must have objects in its split train. Received: none')
    counts, sizes, boxes = Counts(), [], {}
    numbers = {class_name: number for number, class_name in enumerate(names)}
    for split, examples in splits.items():
        unknown = sorted({class_name for one in examples for _, class_name, _ in one.objects} - set(names))
        if unknown:
            raise UserError(f'`dataset` {folder}: {split} has classes that train has not: {", ".join(unknown)}')
        boxes[split] = []
        for one in examples:
            sizes.append(_size(one))
            boxes[split].append(_array(one, sizes[-1], numbers, counts))
    counts.check(folder)
    most = max(1, *(len(one) for part in boxes.values() for one in part))
    fields = {'image': image_field(sizes), 'boxes': Boxes(tuple(names), most)}
    sources = (_source([one.file for one in splits[split]], boxes[split], fields) for split in splits)
    return Dataset(name, *sources, fields=fields, origin=f'{folder}{counts}')


def _source(files, boxes, fields):
    most, names = fields['boxes'].most, np.array(fields['boxes'].names, object)
    about = hash_arrays({'boxes': np.concatenate(boxes), 'each': np.array(list(map(len, boxes))), 'names': names})
    return Pictures(files, fields['image'], about, boxes=BoxLists(boxes, most))


def _size(one):
    size = picture_size(one.file)
    if one.size and tuple(one.size) != size:
        raise UserError(f'`dataset` {one.place} must give the size of {one.file.name}, {size[0]}x{size[1]} (upright). '
                        f'Received: {one.size[0]}x{one.size[1]}')
    return size


def _array(one, size, numbers, counts):
    """float32 [n, 6] of the objects of an image."""
    rows = []
    for box, class_name, ignored in one.objects:
        cut = [min(max(edge, 0), size[i % 2]) for i, edge in enumerate(box)]
        has_area = cut[2] > cut[0] and cut[3] > cut[1]
        counts.add(max(abs(a - b) for a, b in zip(box, cut)) > SLACK, not has_area)
        if has_area:
            rows.append((*cut, numbers[class_name], ignored))
    return np.array(rows, np.float32).reshape(-1, 6)


class Counts:
    """Of boxes that were not as they should be; printed behind the folder's name."""

    def __init__(self):
        self.all = self.beyond = self.empty = 0

    def add(self, is_beyond, is_empty):
        self.all += 1
        self.beyond += is_beyond
        self.empty += is_empty

    def check(self, folder):
        if 2 * self.beyond > self.all:
            raise UserError(f'`dataset` {folder}: most boxes reach beyond their images ({self.beyond} of {self.all}); '
                            'a box must be in the form of its layout (x, y, width, height in COCO\'s), in pixels')

    def __str__(self):
        parts = [f'{self.empty} boxes without an area left out' * bool(self.empty),
                 f'{self.beyond} boxes beyond their images cut' * bool(self.beyond)]
        return f' ({"; ".join(filter(None, parts))})' if any(parts) else ''
