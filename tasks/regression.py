"""Regression: a number per example. Mean squared error, the documents' other loss."""

import tensorflow as tf

from data.dataset import Number, Vector
from data.inputs.vectors import VectorInput
from errors import UserError
from tasks.task import SHOWN, Task, weighted


class Regression(Task):
    """outputs: names of the numbers that the model gives per example; one that gives others has them and a loss."""

    name = 'regression'
    reads = 'vectors'
    needs = {'vector': Vector, 'target': Number}
    best = ('mse', -1)
    training_metrics = ('mse',)
    outputs = ('value',)

    def __init__(self, settings, dataset, data, tokenizer=None):
        super().__init__(settings, dataset, data, tokenizer)
        self.vector = VectorInput(dataset, self.roles['vector'])
        self.sizes = {**self.vector.sizes, 'outputs': len(self.outputs)}

    def prepare(self, examples):
        return {'x': self.vector(examples[self.roles['vector']]),
                'y': tf.cast(examples[self.roles['target']], tf.float32)}                # [B, F], [B]

    def batch(self, rows, draws, training=False):
        return rows['x'], rows['y'], tf.ones_like(rows['y'])

    def loss(self, y, outputs, weights, training=False):
        return weighted(tf.square(tf.cast(outputs[..., 0], tf.float32) - tf.cast(y, tf.float32)), weights)

    def metrics(self, y, outputs, weights):
        return {'mse': self.loss(y, outputs, weights)}

    def decode(self, outputs):
        """[B, N] -> {name: float32 [B]}."""
        return dict(zip(self.outputs, tf.unstack(tf.cast(outputs, tf.float32), axis=-1), strict=True))

    def show_answers(self, model, source):
        """The first targets and the model's answers."""
        examples = source.gather(tf.range(min(SHOWN, source.num_examples), dtype=tf.int64), list(self.roles.values()))
        answers = self.decode(model(self.vector(examples[self.roles['vector']]), training=False))
        columns = {'expected': examples[self.roles['target']], **answers}
        rows = zip(*(column.numpy() for column in columns.values()))
        return {'samples': [list(columns), *([f'{number:.4g}' for number in row] for row in rows)]}

    def serving(self, model):
        """Raw vectors [B, F]."""
        def values(values):
            return self.decode(model(self.vector(values), training=False))
        spec = tf.TensorSpec([None, *self.sizes['input_shape']], tf.float32, name='values')
        return {'serving_default': (values, [spec])}

    def served_inputs(self, examples):
        return {'serving_default': [examples[self.roles['vector']]]}

    def score_served(self, outputs, source):
        name = self.roles['target']
        targets = source.gather(tf.range(source.num_examples, dtype=tf.int64), [name])[name].numpy()
        return {'mse': float(((outputs['value'] - targets) ** 2).mean())} if 'value' in outputs else {}

    def predict(self, model, values):
        """Numbers with commas between."""
        size = self.sizes['input_shape'][0]
        try:
            rows = [[float(number) for number in text.split(',')] for text in values]
        except ValueError as error:
            raise UserError(f'`values` must be numbers with commas between: {error}') from None
        wrong = next((row for row in rows if len(row) != size), None)
        if wrong:
            raise UserError(f'`values` must be {size} numbers. Received: {len(wrong)}')
        function, _ = self.serving(model)['serving_default']
        return {name: output.numpy().tolist() for name, output in function(tf.constant(rows)).items()}

    def describe(self, asked, answer):
        if len(answer) == 1:
            return f'{asked}: {answer["value"]:.4g}'
        return f'{asked}: ' + ', '.join(f'{name} {value:.4g}' for name, value in answer.items())
