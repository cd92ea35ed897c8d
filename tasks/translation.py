"""Translation: one sequence of tokens into another, teacher-forced in training, decoded in evaluation and serving."""

import pathlib

import numpy as np
import tensorflow as tf

from data.text import END, PADDING
from tasks import decoding
from tasks.attention_picture import cross_attention, draw
from tasks.corpus import corpus_scores
from tasks.task import Task, cross_entropy, weighted

CHUNK = 1024      # sentences that are read, or whose tokens become text, at a time
TOGETHER = 256    # sentences that are translated at a time


class Translation(Task):
    """Cross-entropy a real token, label-smoothed as in arXiv:1706.03762, section 5.4.

    Metrics: `token_accuracy` (teacher-forced), `perplexity` = exp(loss), and what corpus.py says of the translations
    that the model itself writes, against the references as strings.

    Args:
        beam_size: of the beam search that evaluation and serving decode with; 1 is greedy.
        length_penalty: of the beam search, as decoding.beam_search.
    """

    name = 'translation'
    feature_kinds = ('text',)
    training_metrics = ('token_accuracy',)
    best = ('bleu', 1)
    settings = (*Task.settings, 'beam_size', 'length_penalty')

    def __init__(self, features, label_smoothing=0., beam_size=1, length_penalty=0.6):
        super().__init__(features, label_smoothing)
        decoding.check_beam_search(beam_size, length_penalty, self.sizes['target_vocabulary_size'])
        self.beam_size, self.length_penalty = beam_size, length_penalty
        self.sampling = None      # arguments of decoding.sample, to draw translations instead of searching the best

    def loss(self, y, outputs, weights, label_smoothing=0.):
        return weighted(cross_entropy(y, outputs, label_smoothing), weights)

    def metrics(self, y, outputs, weights):
        correct = tf.argmax(outputs, axis=-1, output_type=y.dtype) == y                  # [B, T]
        return {'token_accuracy': weighted(correct, weights)}

    def answers(self, model, x):
        ids, _ = self.translate(model, x['source'])
        return ids

    def compare(self, answers, source):
        parts = [range(i, min(i + CHUNK, len(answers))) for i in range(0, len(answers), CHUNK)]
        references = [text for part in parts for text in source.gather(tf.constant(part, tf.int64))['target'].numpy()]
        hypotheses = [text for part in parts for text in self.features.decode(answers[part]).numpy()]
        both = ([text.decode('utf-8', 'replace') for text in texts] for texts in (hypotheses, references))
        return corpus_scores(*both, self.features.target_language)

    def results(self, totals):
        values = super().results(totals)
        values['perplexity'] = float(tf.exp(values['loss'])) if 'count' in totals else None
        return {name: value for name, value in values.items() if value is not None}

    def translate(self, model, source):
        """source int32 [B, S] -> a translation int32 [B, T] and its log-probability float32 [B].

        What has no words is not asked about: its translation has none either.
        """
        ids, log_p = self._decode(model, source)
        nothing = source[:, 0] == END
        return tf.where(nothing[:, None], PADDING, ids), tf.where(nothing, 0., log_p)

    def _decode(self, model, source):
        length = self.features.target_length
        if self.sampling:
            return decoding.sample(model, source, length, **self.sampling)
        if self.beam_size == 1:
            return decoding.greedy(model, source, length)
        ids, log_p = decoding.beam_search(model, source, length, self.beam_size, self.length_penalty)
        return ids[:, 0], log_p[:, 0]

    def predict(self, model, texts):
        """Sentences, str -> {name: list}. What was no UTF-8 on the command line becomes U+FFFD."""
        function, _ = self.serving(model)['serving_default']
        texts = [text.encode('utf-8', 'surrogateescape') for text in texts]
        outputs = [function(tf.constant(texts[i:i + TOGETHER])) for i in range(0, len(texts), TOGETHER)]
        outputs = {name: np.concatenate([part[name] for part in outputs]).tolist() for name in outputs[0]}
        return {**outputs, 'text': [text.decode() for text in outputs['text']]}

    def attention_picture(self, model, text, path):
        """The bytes of a picture of the attention while it translates `text`, of the format that the path ends in."""
        source = self.features.inputs(tf.constant([text.encode('utf-8', 'surrogateescape')]))
        ids, _ = self.translate(model, source)
        return draw(*cross_attention(model, self.features, source[0], ids[0]), pathlib.Path(path).suffix[1:].lower())

    def describe(self, text, answer):
        cut = f' (only its first {self.features.source_length - 1} tokens)' if answer['cut'] else ''
        return f'{text}{cut} -> {answer["text"]}'

    def serving(self, model):
        """{signature name: (function, its TensorSpecs)}: strings [B] in, strings [B] out.

        With each `text` comes its `log_probability`, float32 [B], and `cut`, bool [B]: whether the input was too long.
        """
        def texts(texts):
            ids, log_p = self.translate(model, self.features.inputs(texts))
            return {'text': self.features.decode(ids), 'log_probability': log_p, 'cut': self.features.is_cut(texts)}
        return {'serving_default': (texts, [tf.TensorSpec([None], tf.string, name='texts')])}
