"""Composed scenes against a loop that draws them again, pixel by pixel and in fractions."""

import fractions
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from data import open_dataset
from data.dataset import Boxes, Image, Mask
from data.pipeline import shuffled_rows
from data.source import Tensors
from data.sources import digits, fashion_mnist, scenes
from errors import UserError
from tests.opened import one_source

NAMES = ['digit_scenes', pytest.param('fashion_scenes', marks=pytest.mark.skipif(
    not Path(fashion_mnist.DEBIAN).is_dir(), reason='needs dataset-fashion-mnist'))]
OBJECTS = {'digit_scenes': digits.open_digits, 'fashion_scenes': fashion_mnist.open_fashion_mnist}


def gathered(source, indices, fields=None):
    return {name: value.numpy() for name, value in source.gather(tf.constant(indices, tf.int64), fields).items()}


def placed(image, size, place):
    """An object's grey values in the scene: bilinear, its shares rounded down to multiples of 1 / 64."""
    side = len(image)

    def shares(pixel):
        centre = fractions.Fraction((2 * pixel + 1) * side, 2 * size) - fractions.Fraction(1, 2)
        steps = ((2 * pixel + 1) * side * 64 // size - 64) // 2
        assert 0 <= centre * 64 - steps < 1
        centre = min(max(steps, 0), 64 * (side - 1))
        first, rest = divmod(centre, 64)
        return [(first, 64 - rest), (min(first + 1, side - 1), rest)]
    canvas = np.zeros((scenes.SIDE, scenes.SIDE), int)
    for y in range(size):
        for x in range(size):
            total = sum(int(image[i, j]) * a * b for i, a in shares(y) for j, b in shares(x))
            value = round(fractions.Fraction(total, 64 ** 2))
            canvas[place[0] + y, place[1] + x] = value if value >= scenes.THRESHOLD else 0
    return canvas


def drawn_again(objects, split, class_of, index, seed):
    """(image, boxes, mask) of a scene, by the definition."""
    source = objects.split(split)
    drawn = {name: array[index] for name, array in
             scenes.draw(source.num_examples, scenes.SIZES[split], seed).items()}
    y, x = drawn['backdrop']
    image = scenes.noise(seed)[y:y + scenes.SIDE, x:x + scenes.SIDE].astype(int)
    seen, labels, layers = np.full((scenes.SIDE, scenes.SIDE), -1), {}, {}
    for k in range(drawn['count']):
        one = gathered(source, [drawn['object'][k]])
        layer = placed(one['image'][0, ..., 0], drawn['size'][k], drawn['place'][k])
        after = np.where(layer > 0, k, seen)
        if all(2 * (after == j).sum() >= (layers[j] > 0).sum() for j in layers):
            seen, layers[k], labels[k] = after, layer, class_of[int(one['label'][0])]
    boxes, mask = [], np.zeros((scenes.SIDE, scenes.SIDE), int)
    for k, label in labels.items():
        ys, xs = np.nonzero(seen == k)
        boxes.append((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1, label, 0))
        mask[ys, xs] = label + 1
        for channel in range(3):
            tint = fractions.Fraction(float(drawn['tint'][k, channel]))
            image[ys, xs, channel] = [round(int(value) * tint) for value in layers[k][ys, xs]]
    return image, np.array(boxes + [Boxes.PADDING] * (scenes.MOST - len(boxes))), mask


@pytest.mark.parametrize('name', NAMES)
def test_pixels_boxes_and_masks_are_those_of_the_definition(name):
    dataset, objects = open_dataset(name), OBJECTS[name]()
    classes = scenes.FASHION if name == 'fashion_scenes' else {str(i): (i,) for i in range(10)}
    class_of = {label: number for number, labels in enumerate(classes.values()) for label in labels}
    for seed, split in enumerate(('train', 'validation', 'test')):
        indices = [0, scenes.SIZES[split] - 1, 7]
        found = gathered(dataset.split(split), indices)
        for i, index in enumerate(indices):
            expected = drawn_again(objects, split, class_of, index, seed)
            for key, value in zip(('image', 'boxes', 'mask'), expected):
                np.testing.assert_array_equal(found[key][i], value)


@pytest.mark.parametrize('name', NAMES)
def test_fields(name):
    dataset = open_dataset(name)
    boxes = dataset.fields['boxes']
    assert dataset.fields == {'image': Image((128, 128, 3)), 'boxes': Boxes(boxes.names, 6),
                              'mask': Mask(('background', *boxes.names), (128, 128))}
    assert str(dataset).startswith(f'{name}: 100,000 train, 1,000 validation, 2,000 test')
    found = gathered(dataset.train, range(300))
    counts = np.bincount((found['boxes'][..., 4] >= 0).sum(1), minlength=7)
    assert counts[0] == 0 and counts[1:].min() >= 3                        # one to six objects, all of them
    assert set(np.unique(found['boxes'][..., 4])) == {-1, *range(len(boxes.names))}
    assert set(np.unique(found['mask'])) == set(range(1 + len(boxes.names)))


@pytest.mark.parametrize('name', NAMES)
def test_a_box_holds_its_class_in_the_mask(name):
    found = gathered(open_dataset(name).test, range(100))
    for boxes, mask in zip(found['boxes'], found['mask']):
        covered = np.zeros_like(mask, bool)
        for x0, y0, x1, y1, label, _ in boxes[boxes[:, 4] >= 0].astype(int):
            within = mask[y0:y1, x0:x1] == label + 1
            assert within[0].any() and within[-1].any() and within[:, 0].any() and within[:, -1].any()
            covered[y0:y1, x0:x1] |= within
        np.testing.assert_array_equal(covered, mask > 0)


def test_a_scene_is_a_function_of_its_index():
    dataset = open_dataset('digit_scenes')
    whole = gathered(dataset.train, range(24))
    part = gathered(open_dataset('digit_scenes').train, [17, 3, 17])
    for name, values in part.items():
        np.testing.assert_array_equal(values, whole[name][[17, 3, 17]])
    only = tf.function(lambda indices: dataset.train.gather(indices, ['boxes']))(tf.range(24, dtype=tf.int64))
    assert set(only) == {'boxes'}
    np.testing.assert_array_equal(only['boxes'], whole['boxes'])


def test_replicas_gather_their_parts_of_a_batch():
    source = open_dataset('digit_scenes').train
    rows = shuffled_rows(tf.range(16, dtype=tf.int64), source.num_examples, seed=3)
    whole = gathered(source, rows.numpy())
    for replicas in (2, 8):
        parts = [gathered(source, part) for part in np.split(rows.numpy(), replicas)]
        for name, values in whole.items():
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)


@pytest.mark.parametrize('name', NAMES)
def test_no_object_is_in_two_splits(name):
    """Each split draws from the objects of the split of that name only, and those are disjoint."""
    dataset, objects = open_dataset(name), OBJECTS[name]()
    for split in ('train', 'validation', 'test'):
        drawn = dataset.split(split)._drawn['object'].numpy()
        assert drawn.min() >= 0 and drawn.max() < objects.split(split).num_examples
        assert dataset.split(split)._objects.fingerprint == objects.split(split).fingerprint
    assert len({source.fingerprint for source in (dataset.train, dataset.validation, dataset.test)}) == 3


def test_half_of_an_object_stays_visible():
    whole = np.zeros((3, 6, 128, 128), bool)
    whole[:, 0, :10, :10] = True
    whole[0, 1, :5, :10] = True                  # covers half
    whole[1, 1, :5, :11] = whole[1, 1, 5, 0] = True                       # covers more than half: left out
    whole[1, 2, 20:30, 20:30] = True
    whole[2, 1, :3, :10] = whole[2, 2, 3:6, :10] = True                   # the two together would
    seen = scenes.visible(tf.constant(whole), tf.constant([2, 3, 3])).numpy()
    pixels = [np.bincount(one.ravel(), minlength=4)[1:].tolist() for one in seen]
    assert pixels == [[50, 50, 0], [100, 0, 100], [70, 30, 0]]
    boxes = scenes.boxes_of(tf.constant(seen), tf.constant([[4, 5, 6, 0, 0, 0]] * 3)).numpy()
    assert boxes[1].tolist() == [[0, 0, 10, 10, 4, 0], [20, 20, 30, 30, 6, 0]] + 4 * [list(Boxes.PADDING)]
    assert boxes[2][:2].tolist() == [[0, 3, 10, 10, 4, 0], [0, 0, 10, 3, 5, 0]]


def test_objects_that_cannot_be_composed():
    source = Tensors(image=np.zeros((3, 8, 8, 3), np.uint8), label=np.zeros(3, np.int32))
    objects = one_source(source, 'squares', image=Image((8, 8, 3)))
    with pytest.raises(UserError, match=r'composed of square grey images .* Received: squares of shape \(8, 8, 3\)'):
        scenes.compose('scenes', objects, {'a': (0,)})
