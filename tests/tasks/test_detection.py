"""What a detector learns, how far it is from it, and the boxes that are read from its map."""

import numpy as np
import pytest
import tensorflow as tf

from data.dataset import Boxes, Image
from data.source import Tensors
from tasks import targets
from tests.opened import one_source, task_of
from tests.tasks.cases import boxes, case

STRIDE, CELLS = 4, 16
CLASSES = 3


def padded(*rows, most=4):
    """Rows of boxes [n, 6] per image -> float32 [B, most, 6]."""
    return np.array([[*one, *[Boxes.PADDING] * (most - len(one))] for one in rows], np.float32)


def in_numpy(rows):
    """Heat, owner and share of one image's boxes, by loops: TTFNet's definition, arXiv:1909.00700, section 3.2."""
    heat, share = np.zeros((CELLS, CELLS, CLASSES)), np.zeros((CELLS, CELLS))
    smallest, owner = np.full((CELLS, CELLS), np.inf), np.zeros((CELLS, CELLS), int)
    peaks = []
    for x0, y0, x1, y1, number, ignored in rows:
        peak = np.zeros((CELLS, CELLS))
        if number >= 0 and not ignored:
            w, h = (x1 - x0) / STRIDE, (y1 - y0) / STRIDE
            rx, ry = int(0.54 * w / 2), int(0.54 * h / 2)
            cx, cy = int((x0 + x1) / 2 / STRIDE), int((y0 + y1) / 2 / STRIDE)
            for y in range(max(0, cy - ry), min(CELLS, cy + ry + 1)):
                for x in range(max(0, cx - rx), min(CELLS, cx + rx + 1)):
                    sx, sy = (2 * rx + 1) / 6, (2 * ry + 1) / 6
                    peak[y, x] = np.exp(-(x - cx) ** 2 / (2 * sx ** 2) - (y - cy) ** 2 / (2 * sy ** 2))
            heat[..., int(number)] = np.maximum(heat[..., int(number)], peak)
        peaks.append(peak)
    for i, ((x0, y0, x1, y1, *_), peak) in enumerate(zip(rows, peaks)):
        mine = (peak > 0) & ((x1 - x0) * (y1 - y0) < smallest)
        smallest[mine], owner[mine] = (x1 - x0) * (y1 - y0), i
        share[mine] = peak[mine] / peak.sum() if mine.any() else 0.
    return heat, owner, share


def test_targets_are_those_of_the_paper():
    rows = boxes(8, 4, CELLS * STRIDE)
    heat, owner, share, _ = targets.of_boxes(tf.constant(rows), CELLS, CELLS, CLASSES, STRIDE)
    for i, one in enumerate(rows):
        expected = in_numpy(one)
        np.testing.assert_allclose(heat[i], expected[0], atol=1e-5)
        np.testing.assert_allclose(share[i], expected[2], atol=1e-5)
        assert np.array_equal(np.where(share[i] > 0, owner[i], 0), np.where(expected[2] > 0, expected[1], 0))


def test_every_object_has_one_cell_of_heat_1_and_its_parts_add_up_to_1():
    rows = padded([(3, 5, 23, 29, 0, 0)], [(40, 40, 64, 64, 1, 0), (0, 0, 12, 8, 1, 0)], [])
    heat, _, share, _ = targets.of_boxes(tf.constant(rows), CELLS, CELLS, CLASSES, STRIDE)
    assert np.sum(heat == 1., axis=(1, 2, 3)).tolist() == [1, 2, 0]
    np.testing.assert_allclose(np.sum(share, axis=(1, 2)), [1, 2, 0], rtol=1e-6)
    np.testing.assert_array_equal(targets.count(tf.constant(rows)), [1, 2, 0])


def map_of(rows, sure=20.):
    """The map that says exactly what the boxes [M, 6] are: the logits of the peaks, and the right distances."""
    heat, owner, _, _ = targets.of_boxes(tf.constant(rows[None]), CELLS, CELLS, CLASSES, STRIDE)
    middles = (np.arange(CELLS) + 0.5) * STRIDE
    x, y = np.meshgrid(middles, middles)
    corners = rows[owner.numpy()[0]][..., :4]
    distances = np.stack([x - corners[..., 0], y - corners[..., 1], corners[..., 2] - x, corners[..., 3] - y], -1)
    with np.errstate(divide='ignore'):
        logits = np.clip(np.log(heat[0]) - np.log(1. - heat[0]), -sure, sure)
    return np.concatenate([logits, distances], -1)[None].astype(np.float32)


def test_what_is_read_from_a_perfect_map_are_the_boxes_and_its_loss_is_least():
    rows = padded([(3, 5, 23, 29, 0, 0), (34, 36, 63, 60, 2, 0), (40, 2, 52, 10, 0, 0)])[0]
    outputs = tf.constant(map_of(rows))
    found = targets.find(outputs, CLASSES, 10, STRIDE)
    order = np.lexsort(found['boxes'][0, :3].numpy().T)
    expected = rows[:3][np.lexsort(rows[:3, :4].T)]
    np.testing.assert_allclose(found['boxes'][0].numpy()[:3][order], expected[:, :4], atol=1e-4)
    assert found['classes'].numpy()[0, :3][order].tolist() == expected[:, 4].tolist()
    assert np.all(found['scores'][0, :3] > 0.99) and np.all(found['scores'][0, 3:] < 0.01)
    y = tf.constant(rows[None])
    heat, owner, share, ignored = targets.of_boxes(y, CELLS, CELLS, CLASSES, STRIDE)

    def losses(outputs):
        return (targets.focal_loss(outputs[..., :CLASSES], heat, ignored).numpy()[0],
                targets.box_loss(outputs[..., CLASSES:], y, owner, share, STRIDE).numpy()[0])
    centres, box = losses(outputs)
    assert centres < 1e-3 and abs(box) < 1e-5
    worse = losses(outputs + np.random.RandomState(0).randn(*outputs.shape).astype(np.float32) * 3)
    assert worse[0] > centres and worse[1] > box
    nothing = losses(tf.concat([tf.fill(heat.shape, -20.), outputs[..., CLASSES:]], axis=-1))
    assert nothing[0] > 3 * 19           # each missed centre costs about its logit


def test_the_loss_of_the_boxes_is_torchvisions():
    torch, ops = pytest.importorskip('torch'), pytest.importorskip('torchvision.ops')
    a, b = boxes(6, 1)[:, 0, :4], boxes(6, 1)[:, 0, :4]
    a, b = (np.maximum(t, [0, 0, 1, 1]) for t in (a, b))
    expected = ops.generalized_box_iou_loss(torch.tensor(a), torch.tensor(b))
    np.testing.assert_allclose(1. - targets._giou(tf.constant(a), tf.constant(b)), expected, atol=1e-5)


def test_the_gradient_of_the_centres_is_that_of_the_formula():
    random = np.random.RandomState(0)
    logits = tf.constant(random.randn(2, 5, 5, 3) * 6, tf.float32)
    heat = tf.constant(np.where(random.rand(2, 5, 5, 3) < 0.3, random.rand(2, 5, 5, 3), 0.), tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        ours = tf.reduce_sum(targets.focal_loss(logits, heat, tf.zeros([2, 5, 5], tf.bool)))
        p = tf.sigmoid(logits)
        formula = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(heat, logits) * tf.square(heat - p))
    np.testing.assert_allclose(ours, formula, rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(ours, logits), tape.gradient(formula, logits), atol=1e-5)


def test_an_ignored_object_is_neither_asked_for_nor_punished():
    rows = padded([(0, 0, 32, 32, 0, 1)])
    heat, _, share, ignored = targets.of_boxes(tf.constant(rows), CELLS, CELLS, CLASSES, STRIDE)
    assert not np.any(heat) and not np.any(share)
    assert np.array_equal(ignored[0], np.pad(np.ones((8, 8), bool), (0, 8)))
    sure = tf.fill([1, CELLS, CELLS, CLASSES], 9.)
    inside = tf.reduce_sum(tf.where(ignored[..., None], 1., 0.)) * CLASSES
    all_of_them = targets.focal_loss(sure, heat, tf.zeros_like(ignored)).numpy()[0]
    np.testing.assert_allclose(targets.focal_loss(sure, heat, ignored).numpy()[0],
                               all_of_them * (1 - inside / sure.shape.num_elements()), rtol=1e-5)


def test_images_without_objects_give_finite_numbers():
    _, task, model = case('boxes')
    x = tf.zeros([2, 32, 32, 3])
    y = tf.constant(padded([], [], most=3))
    with tf.GradientTape() as tape:
        loss, weight = task.training_totals(y, model(x, training=True), tf.ones([2]))['loss']
    assert np.isfinite(loss) and weight == 2.
    assert all(np.all(np.isfinite(g)) for g in tape.gradient(loss, model.trainable_variables) if g is not None)
    values = task.compare({name: t.numpy() for name, t in task.answers(model, x).items()}, one_source(
        Tensors(image=np.zeros((2, 32, 32, 3), np.uint8), boxes=y.numpy())).test)
    assert set(values) <= {'precision'} and np.all(np.isfinite(list(values.values())))


@pytest.mark.parametrize('height, width, size', [(40, 80, 64), (300, 20, 128), (1, 1, 32), (7, 700, 256)])
def test_boxes_go_to_the_models_image_and_back(height, width, size):
    image = np.zeros((1, height, width, 3), np.uint8)
    image[0, height // 4:, width // 2:] = 200
    box = (width // 2, height // 4, width, height, 0, 0)
    png = tf.io.encode_png(image[0]).numpy()
    source = Tensors(image=np.array([png], object), boxes=np.array([[box]], np.float32))
    dataset = one_source(source, image=Image((0, 0, 3)), boxes=Boxes(('a', 'b'), 1))
    task = task_of('detection', dataset, image_size=size)
    rows = task.prepare(source.gather(tf.constant([0], tf.int64)))
    moved = rows['boxes'][0, 0, :4].numpy()
    bright = np.argwhere(rows['image'][0, ..., 0].numpy() > 100)
    if len(bright):        # the extent of the pixels, to a pixel
        seen = [*bright.min(0)[::-1], *(bright.max(0)[::-1] + 1)]
        assert np.abs(np.array(seen) - moved).max() <= 1.
    back = task.image.to_image(rows['boxes'][..., :4], tf.constant([[height, width]]))
    np.testing.assert_allclose(back[0, 0], box[:4], rtol=1e-5, atol=1e-4)


def test_an_answer_is_in_the_pixels_of_the_image_whatever_its_size():
    _, task, model = case('boxes')
    task.settings = type(task.settings)(min_score=0.)
    large = np.random.RandomState(0).randint(0, 256, (2, 64, 96, 3)).astype(np.uint8)     # the model has 32x32
    pixels, _ = task.image(tf.constant(large))
    found = task.find(model(task.image.pixels(pixels)))
    served = task.serving(model)['serving_default'][0](tf.constant(large))
    scale = np.array([96 / 32, 64 / 21] * 2)
    np.testing.assert_allclose(served['boxes'], np.minimum(found['boxes'] * scale, [96, 64] * 2), rtol=1e-4, atol=1e-3)
    assert served['count'].numpy().tolist() == [100, 100] and np.array_equal(served['scores'], found['scores'])
    assert served['labels'][0, 0].numpy().decode() == 'abc'[found['classes'][0, 0]]
