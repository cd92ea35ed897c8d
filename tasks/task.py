"""A task: what a model's output means.

Everything is summed, never averaged: {name: (weighted sum, total weight)}. Sums can be added over batches, replicas
and workers in any grouping, and divided once at the end; means cannot.
"""

import tensorflow as tf

from errors import UserError


class Task:
    """Base of all tasks.

    Attributes:
        training_metrics: names beside `loss` in the totals of a training step.
        best: (metric, +1 if larger is better else -1): what the best checkpoint is chosen by.
        settings: fields of a recipe that the constructor takes.
    """

    settings = ('label_smoothing',)
    training_metrics = ()
    best = ('loss', -1)
    feature_kinds = ()

    def __init__(self, features, label_smoothing=0.):
        if features.kind not in self.feature_kinds:
            raise UserError(f'`task` {self.name} needs a dataset of {" or ".join(self.feature_kinds)}s. '
                            f'Received: task={self.name}, and a dataset of {features.kind}s')
        self.features, self.label_smoothing = features, label_smoothing

    @property
    def sizes(self):
        """What the model's builder is given: the dataset's sizes, changed where the task decides."""
        return self.features.sizes

    def loss(self, y, outputs, weights, label_smoothing=0.):
        """Returns (weighted sum of the loss, sum of the weights), float32 scalars."""
        raise NotImplementedError

    def metrics(self, y, outputs, weights):
        """Returns {name: (weighted sum, total weight)}."""
        return {}

    def training_totals(self, y, outputs, weights):
        return {'loss': self.loss(y, outputs, weights, self.label_smoothing), **self.metrics(y, outputs, weights)}

    def evaluation_totals(self, model, x, y, weights):
        """The totals of one batch, without label smoothing. `count` counts examples, each one once."""
        outputs = model(x, training=False)
        return {'loss': self.loss(y, outputs, weights), **self.metrics(y, outputs, weights), 'count': count(weights)}

    def answers(self, model, x):
        """What the model itself writes, where that is compared as a whole: int [B, ...] of static shape, else ()."""
        return ()

    def compare(self, answers, source):
        """The answers to all examples of a source, int32 [N, ...] in order, on the host -> {metric: value}."""
        raise NotImplementedError

    def results(self, totals):
        """{name: (sum, weight)} on the host -> {name: value}."""
        values = {name: total / weight if weight else 0. for name, (total, weight) in totals.items()}
        if 'count' in totals:
            values['count'] = int(totals['count'][0])
        return values


def weighted(values, weights):
    """float [B] or [B, T], twice -> (weighted sum, total weight)."""
    return tf.reduce_sum(tf.cast(values, tf.float32) * weights), tf.reduce_sum(weights)


def count(weights):
    """An example counts if any of its weights is not 0: padding rows do not."""
    rows = tf.reshape(weights, [tf.shape(weights)[0], -1])
    real = tf.reduce_sum(tf.cast(tf.reduce_any(rows > 0, axis=1), tf.float32))
    return real, real


def cross_entropy(y, logits, label_smoothing=0.):
    """int [B, ...] and [B, ..., K] logits -> float32 [B, ...].

    Smoothing (arXiv:1512.00567, section 7) mixes the one-hot target with the uniform one; that equals mixing two
    losses, so no one-hot tensor is made: (1 - e) * CE(y) + e * mean over k of CE(k).
    """
    logits = tf.cast(logits, tf.float32)
    hard = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
    if not label_smoothing:
        return hard
    uniform = tf.reduce_logsumexp(logits, axis=-1) - tf.reduce_mean(logits, axis=-1)
    return (1. - label_smoothing) * hard + label_smoothing * uniform
