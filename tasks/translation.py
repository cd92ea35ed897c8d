"""Translation: one sequence of tokens into another, teacher-forced in training, decoded greedily in evaluation."""

import tensorflow as tf

from data.text import END, PADDING, START
from tasks.task import Task, count, cross_entropy, weighted


class Translation(Task):
    """Cross-entropy a real token, label-smoothed as in arXiv:1706.03762, section 5.4.

    Metrics: `token_accuracy` (teacher-forced), `perplexity` = exp(loss), and `exact_match`: the share of sentences
    whose greedy translation is right to the last token.
    """

    name = 'translation'
    feature_kinds = ('text',)
    training_metrics = ('token_accuracy',)
    best = ('exact_match', 1)

    def loss(self, y, outputs, weights, label_smoothing=0.):
        return weighted(cross_entropy(y, outputs, label_smoothing), weights)

    def metrics(self, y, outputs, weights):
        correct = tf.argmax(outputs, axis=-1, output_type=y.dtype) == y                  # [B, T]
        return {'token_accuracy': weighted(correct, weights)}

    def evaluation_totals(self, model, x, y, weights):
        totals = super().evaluation_totals(model, x, y, weights)
        ids, _ = greedy_decode(model, x['source'], y.shape[1])
        real = weights[:, 0]                              # each sentence has a first token, padding rows have none
        totals['exact_match'] = weighted(tf.reduce_all(ids == y, axis=1), real)
        return {**totals, 'count': count(weights)}

    def results(self, totals):
        values = super().results(totals)
        values['perplexity'] = float(tf.exp(values['loss'])) if 'count' in totals else None
        return {name: value for name, value in values.items() if value is not None}

    def decode(self, outputs):
        """(ids [B, T], log-probabilities [B]) -> {'text': string [B], 'log_probability': float32 [B]}."""
        ids, scores = outputs
        return {'text': self.features.decode(ids), 'log_probability': scores}

    def predict(self, model, texts):
        """Sentences -> {name: list}."""
        function, _ = self.serving(model)['serving_default']
        outputs = function(tf.constant(texts))
        return {'text': [text.decode() for text in outputs['text'].numpy()],
                'log_probability': outputs['log_probability'].numpy().tolist()}

    def describe(self, text, answer):
        return f'{text} -> {answer["text"]}'

    def serving(self, model):
        """{signature name: (function, its TensorSpecs)}: strings in, strings out."""
        def texts(texts):
            return self.decode(greedy_decode(model, self.features.inputs(texts), self.features.target_length))
        return {'serving_default': (texts, [tf.TensorSpec([None], tf.string, name='texts')])}


def greedy_decode(model, source, length):
    """Takes the likeliest next token until END, for all sentences at once.

    Args:
        model: has `encode(source)` and `decode(target, memory, source)`, as models/transformer.py.
        source: int32 [B, S].
        length: static T; a translation that has not ended by then is cut.

    Returns:
        int32 [B, T]: tokens, END, PADDING; and float32 [B], the summed log-probability of the tokens.
    """
    memory = model.encode(source)                                                       # [B, S, D]
    batch = tf.shape(source)[0]
    target = tf.concat([tf.fill([batch, 1], START), tf.zeros([batch, length - 1], tf.int32)], axis=1)

    def step(t, target, ids, scores, ended):
        # Shapes stay static: the whole target is decoded at each step, and position t is read.
        log_p = tf.nn.log_softmax(model.decode(target, memory, source)[:, t])           # [B, V]
        token = tf.where(ended, PADDING, tf.argmax(log_p, axis=-1, output_type=tf.int32))
        scores += tf.where(ended, 0., tf.reduce_max(log_p, axis=-1))
        here = tf.range(length)[None] == t                                              # [1, T]
        ids = tf.where(here, token[:, None], ids)
        next_ = tf.range(length)[None] == t + 1
        target = tf.where(next_, tf.where(token == END, PADDING, token)[:, None], target)
        return t + 1, target, ids, scores, ended | (token == END)

    start = (tf.constant(0), target, tf.zeros_like(target), tf.zeros([batch]), tf.zeros([batch], tf.bool))
    _, _, ids, scores, _ = tf.while_loop(lambda t, *_: True, step, start, maximum_iterations=length)
    return ids, scores
