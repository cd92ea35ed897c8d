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
        model: has `encode`, `start_cache` and `decode_step`, as models/transformer.py.
        source: int32 [B, S].
        length: static T; a translation that has not ended by then is cut.

    Returns:
        int32 [B, T]: tokens, END, PADDING; and float32 [B], the summed log-probability of the tokens.
    """
    cache = model.start_cache(model.encode(source), source, length)
    batch = tf.shape(source)[0]

    def step(t, token, ids, scores, ended, cache):
        logits, cache = model.decode_step(token, t, cache)
        log_p = tf.nn.log_softmax(logits)                                               # [B, V]
        token = tf.where(ended, PADDING, tf.argmax(log_p, axis=-1, output_type=tf.int32))
        scores += tf.where(ended, 0., tf.reduce_max(log_p, axis=-1))
        ids = tf.where(tf.range(length) == t, token[:, None], ids)                      # [B, T], static in each step
        return t + 1, token, ids, scores, ended | (token == END), cache

    start = (tf.constant(0), tf.fill([batch], START), tf.zeros([batch, length], tf.int32), tf.zeros([batch]),
             tf.zeros([batch], tf.bool), cache)
    _, _, ids, scores, _, _ = tf.while_loop(
        lambda t, token, ids, scores, ended, cache: ~tf.reduce_all(ended), step, start, maximum_iterations=length)
    return ids, scores
