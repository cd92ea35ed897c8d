"""Regression: a number an example. Mean squared error, the documents' other loss."""

import tensorflow as tf

from errors import UserError
from tasks.task import Task, weighted


class Regression(Task):
    name = 'regression'
    feature_kinds = ('vector', 'image')
    best = ('mse', -1)
    training_metrics = ('mse',)

    @property
    def sizes(self):
        return {**self.features.sizes, 'outputs': 1}

    def loss(self, y, outputs, weights, label_smoothing=0.):
        return weighted(tf.square(tf.cast(outputs[..., 0], tf.float32) - tf.cast(y, tf.float32)), weights)

    def metrics(self, y, outputs, weights):
        return {'mse': self.loss(y, outputs, weights)}

    def decode(self, outputs):
        """[B, 1] -> {'value': float32 [B]}."""
        return {'value': tf.cast(outputs[..., 0], tf.float32)}

    def predict(self, model, texts):
        """Numbers with commas between -> {'value': list}."""
        size = self.features.sizes['input_shape'][0]
        try:
            rows = [[float(number) for number in text.split(',')] for text in texts]
        except ValueError as error:
            raise UserError(f'`values` must be numbers with commas between: {error}') from None
        if any(len(row) != size for row in rows):
            raise UserError(f'`values` must be {size} numbers. Received: {len(rows[0])}')
        function, _ = self.serving(model)['serving_default']
        return {'value': function(tf.constant(rows))['value'].numpy().tolist()}

    def describe(self, text, answer):
        return f'{text}: {answer["value"]:.4g}'

    def serving(self, model):
        """{signature name: (function, its TensorSpecs)}: raw vectors (or uint8 images)."""
        def values(values):
            return self.decode(model(self.features.inputs(values), training=False))
        if self.features.kind == 'image':
            spec = tf.TensorSpec([None, None, None, None], tf.uint8, name='values')
        else:
            spec = tf.TensorSpec([None, *self.features.sizes['input_shape']], tf.float32, name='values')
        return {'serving_default': (values, [spec])}
