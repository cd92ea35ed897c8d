"""Object detection: the boxes of the objects in an image, and their classes.

The model gives a map of cells, see models/centernet.py. An object is found at the cell of its centre, where the map is
higher than in the 8 cells around it; no boxes are compared with each other (arXiv:1904.07850, section 4.1).
"""

import numpy as np
import tensorflow as tf

from data.dataset import Boxes, Image
from data.inputs.augment import check
from data.inputs.image_files import sizes_of
from data.inputs.letterbox import Letterbox
from tasks import targets
from tasks.images import read_image, signature_inputs, signatures
from tasks.scores.detection import average_precision
from tasks.task import SHOWN, Task, weighted

MOST = 100              # boxes found in an image, as many as COCO's average precision looks at
BOX_WEIGHT = 5.         # of the loss of the boxes beside that of the centres, as in TTFNet


class Detection(Task):
    """x is float32 [B, H, W, C], y boxes [B, M, 6] in its pixels, see data.dataset.Boxes; weights [B]."""

    name = 'detection'
    reads = 'images'
    needs = {'image': Image, 'boxes': Boxes}
    training_metrics = ('centre_loss', 'box_loss')
    best = ('ap', 1)
    shown = ('ap', 'ap50')

    def __init__(self, settings, dataset, data, tokenizer=None):
        super().__init__(settings, dataset, data, tokenizer)
        check(data.augment, has_boxes_or_mask=True)
        self.image = Letterbox(dataset, self.roles['image'], data)
        self._field = dataset.fields[self.roles['image']]
        self.class_names = list(dataset.fields[self.roles['boxes']].names)
        self.sizes = {**self.image.sizes, 'box_classes': len(self.class_names)}

    # --- Data ---

    def prepare(self, examples):
        image, size = self.image(examples[self.roles['image']])
        return {'image': image, 'boxes': self.image.to_model(examples[self.roles['boxes']], size)}

    def batch(self, rows, draws, training=False):
        x, boxes = self.image.pixels(rows['image']), rows['boxes']
        if training:
            x, boxes, _ = self.image.augment(x, draws, boxes=boxes)
        return x, boxes, tf.ones_like(boxes[:, 0, 0])

    # --- Learning ---

    def losses(self, y, outputs):
        """Boxes [B, M, 6] and the model's map -> (loss of the centres, loss of the boxes, objects), float32 [B]."""
        classes = len(self.class_names)
        logits, distances = outputs[..., :classes], outputs[..., classes:]
        stride = self._stride(outputs)
        heat, owner, share, ignored = targets.of_boxes(y, *outputs.shape[1:3], classes, stride)
        centres = targets.focal_loss(logits, heat, ignored)                                  # [B]
        boxes = targets.box_loss(distances, y, owner, share, stride)                         # [B]
        return centres, boxes, targets.count(y)

    def _stride(self, outputs):
        return self.image.shape[0] // outputs.shape[1]

    def training_totals(self, y, outputs, weights):
        return self._totals(y, outputs, weights)

    def loss(self, y, outputs, weights, training=False):
        return self._totals(y, outputs, weights)['loss']

    def metrics(self, y, outputs, weights):
        return {name: pair for name, pair in self._totals(y, outputs, weights).items() if name != 'loss'}

    def _totals(self, y, outputs, weights):
        """Sums over the objects of the whole batch. An image without any counts as one, so that none divides by 0."""
        centres, boxes, count = self.losses(y, outputs)
        losses = {'loss': centres + BOX_WEIGHT * boxes, 'centre_loss': centres, 'box_loss': boxes}
        return {name: (weighted(values, weights)[0], tf.reduce_sum(weights * tf.maximum(count, 1.)))
                for name, values in losses.items()}

    # --- Answers ---

    def find(self, outputs):
        """The model's map -> {boxes [B, MOST, 4] in pixels of its image, scores [B, MOST], classes int32 [B, MOST]}.

        The highest scores first.
        """
        return targets.find(outputs, len(self.class_names), MOST, self._stride(outputs))

    def answers(self, model, x):
        return self.find(model(x, training=False))

    def compare(self, answers, source):
        """COCO's average precision, in pixels of the images as they are, and how good the boxes are that are served."""
        image, boxes = self.roles['image'], self.roles['boxes']
        truth, found = [], []
        for first in range(0, source.num_examples, SHOWN):
            indices = tf.range(first, min(first + SHOWN, source.num_examples), dtype=tf.int64)
            rows = source.gather(indices, [image, boxes])
            truth.append(rows[boxes].numpy())
            here = tf.constant(answers['boxes'][first:first + SHOWN])
            found.append(self.image.to_image(here, sizes_of(rows[image], self._field)).numpy())
        count = np.full(len(answers['scores']), MOST)
        return average_precision({**answers, 'boxes': np.concatenate(found), 'count': count}, np.concatenate(truth),
                                 self.class_names, self.settings.min_score)

    # --- TensorBoard ---

    def show_inputs(self, x):
        return {'inputs': x}

    def show_answers(self, model, source):
        indices = tf.range(min(SHOWN, source.num_examples), dtype=tf.int64)
        x, y, _ = self.batch(self.prepare(source.gather(indices, list(self.roles.values()))), None)
        found = self._counted(self.answers(model, x))
        return {'found': self._drawn(x, found['boxes']), 'truth': self._drawn(x, y[..., :4])}

    def _drawn(self, x, boxes):
        height, width, _ = self.image.shape
        x = tf.tile(x, [1, 1, 1, 3 // x.shape[-1]])
        edges = tf.gather(boxes, [1, 0, 3, 2], axis=-1) / [height, width, height, width]
        return tf.image.draw_bounding_boxes(x, edges, [[1., 0.1, 0.1]])

    # --- Serving ---

    def decode(self, outputs):
        """The model's map -> what is served, in pixels of its image."""
        return self._counted(self.find(outputs))

    def _counted(self, found):
        """`count` int32 [B], the boxes of scores of at least `min_score`; rows behind them are 0, of class -1."""
        there = found['scores'] >= self.settings.min_score                                   # [B, MOST]
        return {'boxes': tf.where(there[..., None], found['boxes'], 0.), 'scores': tf.where(there, found['scores'], 0.),
                'classes': tf.where(there, found['classes'], -1),
                'count': tf.reduce_sum(tf.cast(there, tf.int32), axis=1)}

    def serving(self, model):
        """uint8 images of any size, encoded image files, or the pixels that the model reads: float32, 0 to 1.

        Boxes are x0, y0, x1, y1 in pixels of the images as they are given; for `pixels`, of the model's image.
        """
        def answer(image, size):
            found = self._counted(self.answers(model, self.image.pixels(image)))
            names = tf.gather(tf.constant([*self.class_names, '']), found['classes'] % (len(self.class_names) + 1))
            return {**found, 'boxes': self.image.to_image(found['boxes'], size), 'labels': names}

        return signatures(self.image.shape, images=lambda images: answer(*self.image(images)),
                          encoded=lambda image_bytes: answer(*self.image(image_bytes)),
                          pixels=lambda pixels: self._counted(self.answers(model, pixels)))

    def served_inputs(self, examples):
        raw = self.image.raw(examples[self.roles['image']])
        return signature_inputs(raw, self.image.pixels(self.image(raw)[0]))

    def score_served(self, outputs, source):
        return {name: value for name, value in self.compare(outputs, source).items() if name in ('ap', 'ap50')}

    # --- People ---

    def predict(self, model, image):
        function, _ = self.serving(model)['encoded']
        answers = {name: [] for name in ('boxes', 'scores', 'labels')}
        for path in image:
            found = function(tf.constant([read_image(path)]))
            count = int(found['count'][0])
            answers['boxes'].append(found['boxes'][0, :count].numpy().tolist())
            answers['scores'].append(found['scores'][0, :count].numpy().tolist())
            answers['labels'].append([name.decode() for name in found['labels'][0, :count].numpy()])
        return answers

    def describe(self, asked, answer):
        found = [f'{label} {score:.1%} at {", ".join(f"{edge:.0f}" for edge in box)}'
                 for label, score, box in zip(answer['labels'], answer['scores'], answer['boxes'])]
        return f'{asked}: ' + ('; '.join(found) or 'no object')
