"""Semantic segmentation: the class of each pixel of an image."""

import numpy as np
import tensorflow as tf

from data.dataset import Image, Mask
from data.inputs.augment import check
from data.inputs.letterbox import Letterbox, resize_mask
from data.rows import of as rows_of
from data.sources.masks import encode
from interpretability.palette import palette
from tasks.images import read_image, signature_inputs, signatures
from tasks.scores.segmentation import segmentation_scores
from tasks.task import SHOWN, Task, cross_entropy, weighted

LARGEST = 1024          # pixels of a side at which answers are compared where sizes differ: larger masks are shrunk
HALF = 4096.            # counts are summed in two parts, of which float32 holds each exactly


class Segmentation(Task):
    """x is float32 [B, H, W, C]; weights float32 [B].

    y is {'mask': uint8 [B, H, W]}, void around the image. In an evaluation also {'full': uint8 [B, h, w], the mask as
    it is, void around it; 'size': int32 [B, 2], of the mask in it; 'used': int32 [B, 2], rows and columns that the
    image takes of x}.
    """

    name = 'segmentation'
    reads = 'images'
    needs = {'image': Image, 'mask': Mask}
    training_metrics = ('pixel_accuracy',)
    best = ('mean_iou', 1)
    shown = ('mean_iou',)

    def __init__(self, settings, dataset, data, tokenizer=None):
        super().__init__(settings, dataset, data, tokenizer)
        check(data.augment, has_boxes_or_mask=True)
        self.image = Letterbox(dataset, self.roles['image'], data)
        self._mask = dataset.fields[self.roles['mask']]
        self.class_names = list(self._mask.names)
        self.sizes = {**self.image.sizes, 'pixel_classes': len(self.class_names)}
        sides = self._mask.largest if self._mask.encoded else self._mask.shape
        self._full = [min(side or LARGEST, LARGEST) if self._mask.encoded else side for side in sides]

    # --- Data ---

    def rows(self, source, training=False):
        prepare = self.prepare if training else self.prepare_full
        return rows_of(source, prepare, list(self.roles.values()))

    def prepare(self, examples):
        image, size = self.image(examples[self.roles['image']])
        return {'image': image, 'mask': self._each(self.image.mask_to_model, examples, self.image.shape[:2], size)}

    def prepare_full(self, examples):
        """What `prepare` gives, and the masks as they are."""
        image, size = self.image(examples[self.roles['image']])
        shrunk = self._shrunk(size)
        full = self._each(lambda mask, size: resize_mask(mask, size, self._full), examples, self._full, shrunk)
        return {'image': image, 'mask': self._each(self.image.mask_to_model, examples, self.image.shape[:2], size),
                'full': full, 'size': shrunk, 'used': self.image.used(size)}

    def _each(self, function, examples, shape, size):
        """function (uint8 [h, w], size) -> uint8 [*shape], of each example's mask."""
        def one(pair):
            mask, size = pair
            if self._mask.encoded:
                mask = tf.io.decode_png(mask, channels=1)[..., 0]
            return tf.ensure_shape(function(mask, size), shape)
        masks = examples[self.roles['mask']]
        return tf.ensure_shape(tf.map_fn(one, (masks, size), fn_output_signature=tf.TensorSpec(shape, tf.uint8)),
                               [masks.shape[0], *shape])

    def _shrunk(self, size):
        """int32 [B, 2] -> int32 [B, 2]: the sizes at which answers are compared."""
        fits = tf.reduce_min(tf.constant(self._full, tf.float32) / tf.cast(size, tf.float32), axis=1, keepdims=True)
        return tf.maximum(tf.cast(tf.cast(size, tf.float32) * tf.minimum(fits, 1.), tf.int32), 1)

    def batch(self, rows, draws, training=False):
        x, mask = self.image.pixels(rows['image']), rows['mask']
        weights = tf.ones_like(x[:, 0, 0, 0])
        if training:
            x, _, mask = self.image.augment(x, draws, mask=mask)
            return x, {'mask': mask}, weights
        return x, {name: rows[name] for name in ('mask', 'full', 'size', 'used') if name in rows}, weights

    # --- Learning: sums over the pixels that have a class ---

    def loss(self, y, outputs, weights, training=False):
        classes, weights = _pixels(y['mask'], weights)
        return weighted(cross_entropy(classes, outputs, self.settings.label_smoothing if training else 0.), weights)

    def metrics(self, y, outputs, weights):
        classes, weights = _pixels(y['mask'], weights)
        return {'pixel_accuracy': weighted(tf.argmax(outputs, axis=-1, output_type=tf.int32) == classes, weights)}

    def evaluation_totals(self, model, x, y, weights, real):
        """`confusion`: [2, K, K], counts of pixels of the masks as they are, in two parts."""
        outputs, count = model(x, training=False), tf.reduce_sum(tf.cast(real, tf.float32))
        counts = self._confusion(outputs, y) * weights[:, None, None]                        # [B, K, K]
        high = tf.floor(counts / HALF)
        parts = tf.stack([tf.reduce_sum(high, axis=0), tf.reduce_sum(counts - high * HALF, axis=0)])
        return {'loss': self.loss(y, outputs, weights), 'count': (count, count),
                'confusion': (parts, tf.zeros_like(parts))}      # counts, which nothing divides

    def _confusion(self, outputs, y):
        """Logits [B, H, W, K] -> float32 [B, K, K], exact: pixels of a class (row) that were given a class (column)."""
        classes = len(self.class_names)

        def one(example):
            logits, full, size, used = example
            answers = tf.argmax(self.image.enlarged(logits[None], used, size, self._full)[0], axis=-1)
            truth, answers = (tf.reshape(tf.one_hot(tf.cast(t, tf.int32), classes), [-1, classes])
                              for t in (full, answers))
            return tf.matmul(truth, answers, transpose_a=True)       # void is none of the classes: a row of zeros
        example = outputs, tf.cast(y['full'], tf.int32), y['size'], y['used']
        return tf.map_fn(one, example, fn_output_signature=tf.TensorSpec([classes, classes], tf.float32))

    def results(self, totals):
        values = super().results({name: total for name, total in totals.items() if name != 'confusion'})
        if 'confusion' in totals:
            high, low = np.asarray(totals['confusion'][0], np.int64)
            values |= segmentation_scores(high * int(HALF) + low, self.class_names)
        return values

    # --- TensorBoard ---

    def show_inputs(self, x):
        return {'inputs': x}

    def show_answers(self, model, source):
        indices = tf.range(min(SHOWN, source.num_examples), dtype=tf.int64)
        x, y, _ = self.batch(self.prepare(source.gather(indices, list(self.roles.values()))), None)
        found = tf.argmax(model(x, training=False), axis=-1, output_type=tf.int32)
        return {'found': self._overlaid(x, found), 'truth': self._overlaid(x, y['mask'])}

    def _overlaid(self, x, mask):
        colours = tf.constant(palette(256) / 255., tf.float32)
        return (tf.tile(x, [1, 1, 1, 3 // x.shape[-1]]) + tf.gather(colours, tf.cast(mask, tf.int32))) / 2.

    # --- Serving ---

    def decode(self, outputs):
        """Logits [B, H, W, K] -> the class of each pixel of the model's image, int32 [B, H, W]."""
        return {'classes': tf.argmax(outputs, axis=-1, output_type=tf.int32)}

    def serving(self, model):
        """uint8 images of any size, encoded image files, or the pixels that the model reads: float32, 0 to 1.

        The class of each pixel: `classes` int32 [B, h, w] of images and of pixels; of files, whose sizes may differ,
        `mask` string [B], the bytes of a grey PNG file each.
        """
        def full(logits, size):
            """Logits [B, H, W, K] of images of one size, int32 [2] -> int32 [B, h, w]."""
            used = self.image.used(size[None])[0]
            return tf.argmax(self.image.enlarged(logits, used, size, size), axis=-1, output_type=tf.int32)

        def images(images):
            pixels, _ = self.image(images)
            return {'classes': full(model(self.image.pixels(pixels), training=False), tf.shape(images)[1:3])}

        def encoded(image_bytes):
            pixels, size = self.image(image_bytes)
            logits = model(self.image.pixels(pixels), training=False)
            masks = tf.map_fn(lambda one: encode(tf.cast(full(one[0][None], one[1])[0], tf.uint8)), (logits, size),
                              fn_output_signature=tf.TensorSpec([], tf.string))
            return {'mask': masks}

        return signatures(self.image.shape, images, encoded, lambda pixels: self.decode(model(pixels, training=False)))

    def comparable(self, outputs):
        """Classes instead of the bytes of PNG files."""
        if 'mask' not in outputs:
            return outputs
        masks = [tf.io.decode_png(mask).numpy()[..., 0].astype(np.int32) for mask in outputs['mask']]
        return {'mask': np.stack(masks) if masks else np.zeros((0, 0, 0), np.int32)}

    def served_inputs(self, examples):
        raw = self.image.raw(examples[self.roles['image']])
        return signature_inputs(raw, self.image.pixels(self.image(raw)[0]))

    # --- People ---

    def predict(self, model, image):
        """The mask of each image, uint8 [h, w], and the share of its pixels that each class has."""
        function, _ = self.serving(model)['encoded']
        masks = [tf.io.decode_png(function(tf.constant([read_image(path)]))['mask'][0]).numpy()[..., 0]
                 for path in image]
        return {'mask': masks, 'shares': [self._shares(mask) for mask in masks]}

    def _shares(self, mask):
        shares = np.bincount(mask.ravel(), minlength=len(self.class_names)) / mask.size
        return {self.class_names[i]: float(shares[i]) for i in np.argsort(-shares, kind='stable') if shares[i]}

    def describe(self, asked, answer):
        return f'{asked}: ' + ', '.join(f'{name} {share:.1%}' for name, share in answer['shares'].items())


def _pixels(mask, weights):
    """uint8 [B, H, W] and float32 [B] -> (classes int32 [B, H, W], weights [B, H, W]), 0 where a pixel has no class."""
    has_class = mask != Mask.void
    classes = tf.where(has_class, tf.cast(mask, tf.int32), 0)
    return classes, tf.cast(has_class, tf.float32) * weights[:, None, None]
