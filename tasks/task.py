"""A task: the way from raw fields to (x, y, weights), and what a model's output means.

Everything is summed, never averaged: {name: (weighted sum, total weight)}. Sums can be added over batches, replicas
and workers in any grouping, and divided once at the end; means cannot.
"""

import numpy as np
import tensorflow as tf

from data.rows import of as rows_of
from errors import UserError

TOGETHER = 256      # texts that a model is asked about at a time
SHOWN = 16          # examples in TensorBoard


class Task:
    """Base of all tasks.

    Class attributes:
        name: as on the command line.
        reads: kind of the recipe's section of data.
        needs: {role: kind of field, or a tuple of kinds}; each role is matched with a field of the data set.
        best: (metric, +1 if larger is better else -1): what the best checkpoint is chosen by.
        training_metrics: names beside `loss` in the totals of a training step.
        shown: metrics in a line of the log, beside `loss` and those.

    Attributes:
        sizes: what the model's builder is given.
        roles: {role: name of the data set's field}.
        tables: tf.Modules whose look-up tables a SavedModel must hold.
        tokenizer_files: {name: bytes} of the tokenizer that a run keeps; {} for a task without one.
        class_names: what the class numbers of the outputs mean; () where there are none.

    Args:
        settings: the recipe's section of the task. dataset: a data.dataset.Dataset. data: the recipe's section of the
            data. tokenizer: {name: bytes} of the run's own tokenizer, if it has one.
    """

    name = ''
    reads = ''
    needs = {}
    best = ('loss', -1)
    training_metrics = ()
    shown = ()
    tables = ()
    tokenizer_files = {}
    class_names = ()

    def __init__(self, settings, dataset, data, tokenizer=None):
        self.settings, self.roles = settings, match(self.name, self.needs, dataset)
        if data.kind != self.reads:
            raise UserError(f'`dataset` {dataset.name} needs a recipe that reads {self.reads}, for its '
                            f'{", ".join(self.roles.values())} (see --list). Received: a recipe that reads {data.kind}')
        self.sizes = {}

    # --- Data, in the graph ---

    def prepare(self, examples):
        """Raw fields {name: [B, ...]} -> what may be kept of them, {name: [B, ...]}. Deterministic."""
        raise NotImplementedError

    def rows(self, source, training=False):
        """The rows of a source, see data/rows.py."""
        return rows_of(source, self.prepare, list(self.roles.values()))

    def batch(self, rows, draws, training=False):
        """Prepared rows -> (x, y, weights) of static shapes; x and y are tensors or dicts of them.

        draws: a draws.Draws of these rows, for what is random. weights: float32 [B] or [B, T], 0 for padding.
        """
        raise NotImplementedError

    # --- Learning: sums over rows; nothing looks across rows ---

    def loss(self, y, outputs, weights, training=False):
        """Returns (weighted sum of the loss, sum of the weights), float32 scalars."""
        raise NotImplementedError

    def metrics(self, y, outputs, weights):
        """Returns {name: (weighted sum, total weight)}, tensors of any shape."""
        return {}

    def training_totals(self, y, outputs, weights):
        return {'loss': self.loss(y, outputs, weights, training=True), **self.metrics(y, outputs, weights)}

    def evaluation_totals(self, model, x, y, weights, real):
        """The totals of one batch. `count` counts examples, each one once. real: float32 [B], 0 for padding rows."""
        outputs, count = model(x, training=False), tf.reduce_sum(tf.cast(real, tf.float32))
        return {'loss': self.loss(y, outputs, weights), **self.metrics(y, outputs, weights), 'count': (count, count)}

    def results(self, totals):
        """{name: (sum, weight)} on the host -> {name: value}, a list where they are no scalars; one of weight 0 is left
        out."""
        values = {name: np.divide(total, weight).tolist() for name, (total, weight) in totals.items() if np.all(weight)}
        if 'count' in totals:
            values['count'] = int(totals['count'][0])
        return values

    # --- What the model writes itself, compared as a whole ---

    def answers(self, model, x):
        """What is compared as a whole: tensors [B, ...] of static shapes and any numeric type, or () for none."""
        return ()

    def rows_of(self, source):
        """How many rows an evaluation has of a source."""
        return source.num_examples

    def compare(self, answers, source):
        """The answers to all rows of a source, arrays [N, ...] in order, on the host -> {metric: value}.

        A task that makes several rows of an example gives `count` here: the number of examples.
        """
        raise NotImplementedError

    # --- TensorBoard: {name: float images [N, H, W, C] in 0 to 1; or a table, [[text]] with its head first} ---

    def show_inputs(self, x):
        """What a person may see of the first rows of the first training batch, as the model is given them."""
        return {}

    def show_answers(self, model, source):
        """What a person may see of the trained model's answers to some examples of a source."""
        return {}

    # --- Serving, people ---

    def serving(self, model):
        """{signature: (function, its TensorSpecs)}: raw inputs in, {name: output} out."""
        raise NotImplementedError

    def served_inputs(self, examples):
        """Raw examples of a source -> {signature: [tensor per TensorSpec]}: what an export is checked with."""
        raise NotImplementedError

    def comparable(self, outputs):
        """{name: array} of a signature -> what an export is compared by: other arrays, for outputs that are files."""
        return outputs

    def score_served(self, outputs, source):
        """A plain signature's outputs for all examples of a source, {name: array [N, ...]} -> {metric: value}."""
        return {}

    def predict(self, model, **asked):
        """What a person asked, {flag: list} with the `asked_by` of the data's section -> {name: list of answers}."""
        raise NotImplementedError

    def describe(self, asked, answer):
        """A line for a person. asked: as it was given. answer: {name: value} of one of `predict`'s answers."""
        raise NotImplementedError


def match(task, needs, dataset):
    """{role: name of the field}: by kind, and by name where the data set has several of a kind.

    Raises:
        UserError: the data set has no such field, or several and none of that name.
    """
    roles = {}
    for role, kind in needs.items():
        found = dataset.of_kind(kind)
        if role not in found and len(found) != 1:
            wanted = ', '.join(f'{role} ({_names(kind)})' for role, kind in needs.items())
            raise UserError(f'`task` {task} needs {wanted}. Received: dataset={dataset.name}, which has '
                            + (', '.join(f'{name} ({_names(type(field))})' for name, field in dataset.fields.items())
                               or 'no such fields'))
        roles[role] = role if role in found else found[0]
    return roles


def _names(kinds):
    return ' or '.join(kind.__name__.lower() for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))


def ask_texts(function, texts):
    """A served function of strings, asked about some: [str] -> {name: list}.

    Bytes of the command line that are not UTF-8 become U+FFFD.
    """
    texts = [text.encode('utf-8', 'surrogateescape') for text in texts]
    outputs = [function(tf.constant(texts[i:i + TOGETHER])) for i in range(0, len(texts), TOGETHER)]
    lists = {name: np.concatenate([part[name] for part in outputs]).tolist() for name in outputs[0]}
    return {name: [value.decode() if isinstance(value, bytes) else value for value in values]
            for name, values in lists.items()}


def weighted(values, weights):
    """float [B] or [B, T], twice -> (weighted sum, total weight)."""
    return tf.reduce_sum(tf.cast(values, tf.float32) * weights), tf.reduce_sum(weights)


def cross_entropy(y, logits, label_smoothing=0.):
    """int [B, ...] and [B, ..., K] logits -> float32 [B, ...].

    Smoothing (arXiv:1512.00567, section 7) mixes the one-hot target with the uniform one.
    """
    logits = tf.cast(logits, tf.float32)
    if not label_smoothing:
        return _sparse_cross_entropy(y, logits)
    # One operation, so that the logits have one gradient. Two losses, without this tensor of targets, give them three
    # of its size: 2.6 times as long on a CPU, without XLA.
    uniform = label_smoothing / logits.shape[-1]
    targets = tf.one_hot(y, logits.shape[-1], 1. - label_smoothing + uniform, uniform)     # [B, ..., K]
    return tf.nn.softmax_cross_entropy_with_logits(targets, logits)


def mixed_cross_entropy(label, partner, share, logits, label_smoothing=0.):
    """int [B], twice, share float32 [B] of the first, and [B, K] logits -> float32 [B]: that of the mixed targets."""
    share, classes = share[:, None], logits.shape[-1]
    targets = share * tf.one_hot(label, classes) + (1. - share) * tf.one_hot(partner, classes)     # [B, K]
    targets = (1. - label_smoothing) * targets + label_smoothing / classes
    return tf.nn.softmax_cross_entropy_with_logits(targets, tf.cast(logits, tf.float32))


@tf.custom_gradient
def _sparse_cross_entropy(y, logits):
    """int [B, ...] and float32 [B, ..., K] -> float32 [B, ...]. Its gradient is softmax - one-hot.

    It has the bits of TensorFlow's deterministic one, which comes from a scatter: slow where XLA compiles for a GPU.
    """
    def gradient(upstream):
        upstream = upstream[..., None]
        softmax = tf.exp(tf.nn.log_softmax(logits))
        return None, softmax * upstream - tf.one_hot(y, logits.shape[-1]) * upstream
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits), gradient
