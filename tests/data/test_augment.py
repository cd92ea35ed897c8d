"""Augmentations as properties of each name; against numpy and torchvision."""

import numpy as np
import pytest
import tensorflow as tf

from data.dataset import Boxes, Image, Label, Mask
from data.inputs import boxes as moving
from data.inputs import colour, geometry, mixing, trivial
from data.inputs.augment import MIXING, MOVING, ORDER, augment, check, ordered
from data.pipeline import training_slices
from data.source import Tensors
from draws import Draws
from errors import UserError
from settings.data import AUGMENTATIONS
from tests.opened import one_source, task_of

RANDOM = np.random.RandomState(0)
PIXELS = RANDOM.randint(0, 256, (16, 24, 36, 3)).astype(np.uint8)
IMAGES = PIXELS / np.float32(255)
SINGLE = [name for name in ORDER if name not in MIXING]
each = pytest.mark.parametrize('name', SINGLE)


def augmented(name, images=IMAGES, step=5, first_row=0, **draws):
    return augment([name], tf.constant(images), Draws(7, step, first_row, **draws))[0].numpy()


def test_settings_list_the_names_in_the_order_of_their_use():
    assert AUGMENTATIONS == ('none', *ORDER)
    assert ordered('erase,none,flip,crop') == ordered(['crop', 'flip', 'erase']) == ('crop', 'flip', 'erase')
    with pytest.raises(UserError, match='`augment` must be one of none, .*Did you mean flip'):
        ordered('flop')


@each
def test_shape_type_and_range_stay_and_steps_differ(name):
    for images in (IMAGES, IMAGES[..., :1], IMAGES[:, :1, :2]):
        changed = augmented(name, images)
        assert changed.shape == images.shape and changed.dtype == np.float32
        assert 0 <= changed.min() and changed.max() <= 1
    np.testing.assert_array_equal(augmented(name), augmented(name))
    assert (augmented(name) != IMAGES).any()
    assert (augmented(name, step=5) != augmented(name, step=6)).any()


@each
def test_a_row_depends_on_no_other_row(name):
    whole = augmented(name)
    for size in (1, 3, 8):
        parts = [augmented(name, IMAGES[first:first + size], first_row=first) for first in range(0, 16, size)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    others = np.concatenate([IMAGES[:1], 1 - IMAGES[1:]])
    np.testing.assert_array_equal(augmented(name, others)[0], whole[0])


@each
def test_a_graph_has_static_shapes_and_the_same_result(name):
    graph = tf.function(lambda step: augment([name], tf.constant(IMAGES), Draws(7, step))[0])
    step = tf.constant(5, tf.int64)
    assert graph.get_concrete_function(step).outputs[0].shape == IMAGES.shape
    np.testing.assert_allclose(graph(step), augmented(name), atol=1e-5)


def test_several_are_applied_one_after_the_other():
    together = augment('vertical_flip,crop', tf.constant(IMAGES), Draws(7, 5))[0]
    np.testing.assert_array_equal(together, augmented('vertical_flip', augmented('crop')))


# --- Boxes and masks ---

SIDE, COUNT = 48, 64


def painted():
    """(images, boxes, masks): box k of an image is white in channel k, and box 0 is class 1 of the mask."""
    rng = np.random.RandomState(1)
    boxes = np.tile(np.float32(Boxes.PADDING), (COUNT, 4, 1))
    images, masks = np.zeros((COUNT, SIDE, SIDE, 3), np.float32), np.zeros((COUNT, SIDE, SIDE), np.uint8)
    for i in range(COUNT):
        for k in range(3):
            width, height = rng.randint(6, 25, 2)
            x, y = rng.randint(0, SIDE - width + 1), rng.randint(0, SIDE - height + 1)
            boxes[i, k] = x, y, x + width, y + height, k, k % 2
            images[i, y:y + height, x:x + width, k] = 1
        x0, y0, x1, y1 = boxes[i, 0, :4].astype(int)
        masks[i, y0:y1, x0:x1] = 1
    return tf.constant(images), tf.constant(boxes), tf.constant(masks)


def extent(seen):
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def find(boxes, number):
    found = boxes[boxes[:, 4] == number]
    assert len(found) <= 1
    return found[0, :4] if len(found) else None


def assert_fits(box, seen, is_exact):
    around = extent(seen)
    assert (box[:2] <= around[:2] + 1).all() and (box[2:] >= around[2:] - 1).all()
    if is_exact:
        np.testing.assert_allclose(box, around, atol=1)


@each
def test_boxes_move_with_the_pixels(name):
    images, boxes, masks = painted()
    changed, moved, mask = (t.numpy() for t in augment([name], images, Draws(3, 2), boxes, masks))
    assert (moved.shape, moved.dtype, mask.shape, mask.dtype) == (boxes.shape, np.float32, masks.shape, np.uint8)
    assert set(np.unique(mask)) <= {0, 1, Mask.void} and moved[..., :4].min() >= 0 and moved[..., :4].max() <= SIDE
    is_there = moved[..., 4] >= 0
    np.testing.assert_array_equal(moved[~is_there], np.tile(np.float32(Boxes.PADDING), ((~is_there).sum(), 1)))
    assert (np.diff(is_there.astype(int), axis=1) <= 0).all() and is_there.any(axis=1).mean() > 0.9
    assert (moved[is_there][:, 5] == moved[is_there][:, 4] % 2).all()
    compared = 0
    for i in range(COUNT):
        for k in range(3):
            seen = mask[i] == 1 if k == 0 else changed[i, ..., k] > 0.5
            # Colours change too, a reflection doubles an object, and erasing hides it.
            if k and name in ('trivial_augment', 'translate', 'color_jitter', 'erase'):
                continue
            box = find(moved[i], k)
            if box is not None:
                # The corners of a turned box may be outside, and then what is seen is smaller.
                inside = (box > 0).all() and (box < SIDE).all()
                assert_fits(box, seen, inside or name != 'trivial_augment')
                compared += 1
    assert compared > COUNT / 2


@pytest.mark.parametrize('right, left', [(0., 1.), (7., 0.3), (8., 0.2), (-90., 0.)])
def test_a_box_of_which_too_little_is_left_is_removed(right, left):
    """Boxes of 10 pixels at the left edge of an image whose pixels move to the left by `right`."""
    one = tf.constant([[[0., 2, 10, 12, 4, 0], [0, 2, 10, 12, 5, 1], [50, 0, 70, 10, 6, 0], Boxes.PADDING]])
    moved, share = moving.move_boxes(one, geometry.affine(1, a2=right), 80, 80)
    np.testing.assert_allclose(share[0, :2], left, atol=1e-6)
    kept = moving.remove_lost(moved, share)[0]
    numbers = [4., 5., 6., -1.] if left >= 0.25 else [6., -1., -1., -1.]
    assert kept[:, 4].numpy().tolist() == (numbers if right >= 0 else [-1.] * 4)
    if 0 < right:
        np.testing.assert_allclose(kept[numbers.index(6.), :4], [50 - right, 0, 70 - right, 10])


def test_the_share_that_is_left_counts_all_moves():
    """A box of which 0.4 is left by each of two moves is gone, whatever each alone leaves."""
    boxes = tf.constant([[[0., 0, 10, 10, 0, 0]]])
    shares = 1.
    for transform in (geometry.affine(1, a2=6.), geometry.affine(1, b2=6.)):
        boxes, share = moving.move_boxes(boxes, transform, 20, 20)
        assert moving.remove_lost(boxes, share)[0, 0, 4] == 0
        shares *= share
    assert moving.remove_lost(boxes, shares)[0, 0, 4] == -1


def test_what_comes_into_view_is_void():
    mask = tf.zeros([64, 16, 16], tf.uint8)
    _, boxes, moved = augment(['crop'], tf.ones([64, 16, 16, 1]), Draws(0), mask=mask)
    images = augment(['crop'], tf.ones([64, 16, 16, 1]), Draws(0))[0]
    np.testing.assert_array_equal(moved == Mask.void, images[..., 0] == 0)
    assert boxes is None and (moved.numpy() == Mask.void).any()


def test_images_with_boxes_or_masks_are_not_mixed():
    check('flip,erase', True), check('mixup', False)
    with pytest.raises(UserError, match="`augment` must not mix .* boxes or masks.* Received: augment='cutmix'"):
        check('flip,cutmix', True)


# --- Each by a definition ---

@pytest.mark.parametrize('name', ['flip', 'vertical_flip', 'alternating_flip'])
def test_a_mirror_twice_is_the_identity(name):
    once = augmented(name)
    np.testing.assert_array_equal(augmented(name, once), IMAGES)
    mirrored = IMAGES[:, ::-1] if name == 'vertical_flip' else IMAGES[:, :, ::-1]
    is_mirrored = (once == mirrored).all(axis=(1, 2, 3))
    assert (is_mirrored | (once == IMAGES).all(axis=(1, 2, 3))).all() and 2 < is_mirrored.sum() < 14


def alternating(count, epochs, augment):
    """{epoch: {example: its image}} as the pipeline gives them; image i is random but for i in its middle column."""
    images = np.random.RandomState(2).randint(0, 256, (count, 3, 3, 1)).astype(np.uint8)
    source = Tensors(image=images, label=np.arange(count, dtype=np.int32))
    task = task_of('classification', one_source(source, image=Image((3, 3, 1)), label=Label(('a', 'b'))),
                   augment=augment)
    slices = training_slices(task.rows(source, True), task.batch, batch_size=count, seed=4)()
    return images / np.float32(255), {e: {label: x[j] for j, label in enumerate(y)} for e, (x, y, _) in
                                      enumerate(slices.take(epochs).as_numpy_iterator())}


def test_alternating_flip_shows_each_image_both_ways_in_two_epochs():
    count = 400
    images, seen = alternating(count, 4, 'alternating_flip')
    mirrored = np.array([[(seen[e][i] != images[i]).any() for i in range(count)] for e in range(4)])
    for e in range(4):
        for i in range(count):
            np.testing.assert_array_equal(seen[e][i], images[i][:, ::-1] if mirrored[e, i] else images[i])
    assert (mirrored[0] ^ mirrored[1]).all() and (mirrored[0] == mirrored[2]).all()
    assert abs(mirrored[0].mean() - 0.5) < 0.1
    assert abs((mirrored[0][1:] == mirrored[0][:-1]).mean() - 0.5) < 0.1      # neighbours have nothing in common


def test_the_bits_of_an_example_are_the_same_in_every_step_and_place():
    examples = tf.constant([3, 1, 4, 1, 5], tf.int64)
    bits = Draws(1, 2, 3, example=examples).bits_of_examples('a', 5).numpy()
    assert bits[1] == bits[3] and len(set(bits)) == 4
    np.testing.assert_array_equal(bits, Draws(1, 9, 0, example=examples).bits_of_examples('a', 5))
    np.testing.assert_array_equal(Draws(1, 9, 3).bits_of_examples('a', 3)[:2], bits[[0, 2]])
    assert not set(bits) & set(Draws(1, 9, 0, example=examples).bits_of_examples('b', 5).numpy())
    many = Draws(0).bits_of_examples('a', 4096).numpy()
    shares = (many[:, None] >> np.arange(64, dtype=np.uint64)) % 2
    assert (np.abs(shares.mean(axis=0) - 0.5) < 0.04).all()


@pytest.mark.parametrize('name, far, mode', [('crop', (3, 4), 'constant'), ('translate', (2, 2), 'reflect')])
def test_crop_and_translate_are_windows_of_a_padded_image(name, far, mode):
    images = np.tile(IMAGES, (40, 1, 1, 1))
    (down, right), places = far, set()
    padded = np.pad(images, ((0, 0), (down, down), (right, right), (0, 0)), mode)
    windows = {(y, x): padded[:, y:y + 24, x:x + 36] for y in range(2 * down + 1) for x in range(2 * right + 1)}
    for i, image in enumerate(augmented(name, images)):
        found = [place for place, window in windows.items() if np.array_equal(window[i], image)]
        assert len(found) == 1
        places.add(found[0])
    assert places == set(windows)


@pytest.mark.parametrize('size', [(32, 32), (20, 60), (8, 64)])
def test_resized_crop_is_a_window_of_allowed_area_and_ratio(size):
    height, width = size
    y, x = np.indices(size, np.float32) / 64
    ramps = np.tile(np.stack([x, y], axis=-1), (500, 1, 1, 1))
    seen = augmented('resized_crop', ramps) * 64
    # Away from the edges of the image, both channels are the coordinates of the pixels that are seen.
    across, down = (np.median(np.diff(seen[..., i], axis=2 - i), axis=(1, 2)) * side
                    for i, side in ((0, width), (1, height)))
    np.testing.assert_allclose(across, np.round(across), atol=1e-3)
    share, ratio = across * down / (height * width), across / down
    fits = height * 4 / 3 >= width * 0.55
    if fits:
        assert 0.22 < share.min() and share.max() <= 1.001
    assert 0.7 < ratio.min() and ratio.max() < 1.45 and across.max() <= width + 1e-3 and down.max() <= height + 1e-3
    left = seen[:, height // 2, width // 2, 0] - (width // 2 + 0.5) * across / width + 0.5
    assert left.min() > -0.01 and (left + across).max() < width + 0.01
    if fits:
        assert len(set(np.round(left))) > 4


def test_erase_blackens_a_rectangle_of_some_images():
    ones = tf.ones([1000, 20, 30, 2])
    erased = augmented('erase', ones)[..., 0] == 0
    shares = erased.mean(axis=(1, 2))
    assert abs((shares > 0).mean() - 0.25) < 0.05 and 0.015 < shares[shares > 0].min() and shares.max() < 0.36
    for seen in erased[shares > 0]:
        x0, y0, x1, y1 = extent(seen)
        assert seen[y0:y1, x0:x1].all() and 0.25 < (x1 - x0) / (y1 - y0) < 4
    images, boxes, masks = painted()
    _, same, mask = augment(['erase'], images, Draws(0), boxes, masks)
    assert same is boxes and mask is masks


# --- Against torchvision ---

@pytest.fixture(scope='module')
def peer():
    pytest.importorskip('torchvision', reason='needs pip install -e ".[torch]"')
    import torch
    from torchvision.transforms import InterpolationMode, functional
    from torchvision.transforms.autoaugment import TrivialAugmentWide, _apply_op

    def apply(image, name, magnitude):
        title = {'color': 'Color'}.get(name, ''.join(part.title() for part in name.split('_')))
        title = {'Autocontrast': 'AutoContrast'}.get(title, title)
        magnitude /= 255 if name == 'solarize' else 1
        whole = name in ('posterize', 'equalize')
        given = torch.from_numpy(np.moveaxis(np.round(image * 255).astype(np.uint8) if whole else image, -1, 0).copy())
        out = _apply_op(given, title, magnitude, InterpolationMode.BILINEAR, None)
        return np.moveaxis(out.numpy(), 0, -1) / np.float32(255 if whole else 1)
    space = TrivialAugmentWide()._augmentation_space(trivial.STRENGTHS)
    return functional, apply, {name.lower(): values for name, values in space.items()}


def dull(count):
    """Images whose values fill a part of the range, one of them a single value."""
    values = np.random.RandomState(3).randint(40, 200, (count, 24, 36, 3)) // np.array([1, 2, 3])
    values[0] = 77
    return tf.constant(np.float32(values / 255))


@pytest.mark.parametrize('name', trivial.OPERATIONS)
def test_operations_of_trivial_augment_are_torchvisions(peer, name):
    _, apply, space = peer
    magnitudes, signed = space[name.replace('_', '')]
    images, bins = dull(31), np.arange(31)
    sign = np.where(bins % 2, -1, 1).astype(np.float32)
    chosen = tf.fill([31], trivial.OPERATIONS.index(name)), tf.constant(bins, tf.int32), tf.constant(sign)
    ours = geometry.move_images(images, MOVING['trivial_augment'], trivial.transform_of(images.shape, *chosen))
    ours = trivial.colours_of(ours, *chosen).numpy()
    for i in bins:
        # Rounded: its 16th translation is 15.999999 pixels, of which it would take 15.
        magnitude = round(float(magnitudes[i]), 4) * float(sign[i] if signed else 1) if magnitudes.ndim else 0.
        theirs = apply(images[i].numpy(), name, magnitude)
        if name in trivial.MOVING:      # they differ in rounding at black edges
            assert np.mean(np.abs(ours[i] - theirs) > 1e-3) < 0.002, i
        else:
            np.testing.assert_allclose(ours[i], theirs, atol=1e-3, err_msg=str(i))
    if name not in ('posterize', 'solarize', 'autocontrast', 'equalize'):
        np.testing.assert_array_equal(ours[0], images[0])      # of strength 0


def test_all_operations_of_trivial_augment_are_drawn_equally():
    operation, strength, sign = trivial.chosen(Draws(0), 20_000)
    counts = np.bincount(operation, minlength=14)
    assert counts.min() > 0.9 * 20_000 / 14 and counts.max() < 1.1 * 20_000 / 14
    assert set(strength.numpy()) == set(range(31)) and abs(np.mean(sign)) < 0.05


def test_color_jitter_is_torchvisions_in_one_order(peer):
    import torch
    functional, *_ = peer
    images = dull(16)
    factors = 1 + colour.JITTER * (2 * Draws(7, 5).uniform('color_jitter', (16, 3)).numpy() - 1)
    assert factors.min() < 0.8 and factors.max() > 1.2
    for ours, image, (a, b, c) in zip(augmented('color_jitter', images), images.numpy(), factors.tolist()):
        theirs = torch.from_numpy(np.moveaxis(image, -1, 0).copy())
        theirs = functional.adjust_contrast(functional.adjust_brightness(theirs, a), b)
        theirs = functional.adjust_saturation(theirs, c).numpy()
        np.testing.assert_allclose(ours, np.moveaxis(theirs, 0, -1), atol=1e-3)


def test_factors_of_1_change_nothing():
    for change in (colour.brightness, colour.contrast, colour.saturation, colour.sharpness):
        np.testing.assert_array_equal(change(IMAGES, tf.ones([16])), IMAGES)
    np.testing.assert_allclose(colour.posterize(IMAGES, tf.fill([16], 8)), IMAGES, atol=1e-6)


def test_windows_that_do_not_fit_are_not_taken():
    """The first try that fits, as if they were drawn one after the other."""
    noise = Draws(0).uniform('a', (200, 2 * geometry.TRIES))
    h, w, fits = (t.numpy() for t in geometry.first_fitting(noise, (10, 40), (10, 40), (0.3, 1.), (0.5, 2.)))
    n = noise.numpy()
    area, ratio = (0.3 + 0.7 * n[:, :10]) * 400, 0.5 * 4. ** n[:, 10:]
    for i in range(200):
        tries = [(round(np.sqrt(a / r)), round(np.sqrt(a * r))) for a, r in zip(area[i], ratio[i])]
        expected = next((one for one in tries if one[0] <= 10 and one[1] <= 40), None)
        assert fits[i] == (expected is not None) and (expected is None or expected == (h[i], w[i]))
    assert 0 < fits.sum() < 200 and mixing.TRIES == geometry.TRIES
