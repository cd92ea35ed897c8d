"""Translation: one sequence of tokens into another, teacher-forced in training, decoded in evaluation and serving."""

import tensorflow as tf

from data.dataset import Text
from data.inputs.text import text_inputs
from data.packing import Packed
from data.rows import Mapped
from tasks import decoding
from tasks.scores.translation import corpus_scores
from tasks.task import SHOWN, Task, ask_texts, cross_entropy, weighted

CHUNK = 1024      # sentences that are read, or whose tokens become text, at a time


class Translation(Task):
    """Cross-entropy per real token, label-smoothed as in arXiv:1706.03762, section 5.4.

    Metrics: `token_accuracy` (teacher-forced), `perplexity` = exp(loss), and what scores/translation.py says of the
    translations that the model itself writes, against the references as strings.

    Attributes:
        sampling: arguments of decoding.sample, to draw translations instead of searching for the best; or None.
    """

    name = 'translation'
    reads = 'text_pairs'
    needs = {'source': Text, 'target': Text}
    training_metrics = ('token_accuracy',)
    shown = ('perplexity', 'exact_match', 'bleu', 'chrf')
    best = ('bleu', 1)

    def __init__(self, settings, dataset, data, tokenizer=None, sampling=None):
        super().__init__(settings, dataset, data, tokenizer)
        self.sampling, self._packing = sampling, data.packing
        inputs = text_inputs(dataset, [self.roles['source'], self.roles['target']], data, tokenizer)
        self.source, self.target = inputs[self.roles['source']], inputs[self.roles['target']]
        self.language = dataset.fields[self.roles['target']].language
        self.tables = [self.source.tokenizer, self.target.tokenizer]
        self.tokenizer_files = self.source.tokenizer.files if self.source.tokenizer is self.target.tokenizer else {}
        self.sizes = {'source_vocabulary_size': self.source.tokenizer.vocabulary_size,
                      'target_vocabulary_size': self.target.tokenizer.vocabulary_size}
        decoding.check_beam_search(settings.beam_size, settings.length_penalty, self.sizes['target_vocabulary_size'])

    # --- Data ---

    def prepare(self, examples):
        return {'source': self.source(examples[self.roles['source']]),                   # [B, S]
                'target': self.target(examples[self.roles['target']])}                   # [B, T]

    def rows(self, source, training=False):
        if not (training and self._packing):
            return super().rows(source)
        pairs = Mapped(source, self.prepare, list(self.roles.values()))
        return Packed(pairs, self.source.special, self.target.special, max(self.source.length, self.target.length))

    def batch(self, rows, draws, training=False):
        """-> {'source': [B, S], 'target': [B, T], ...}, tokens and end [B, T], 1. on real tokens [B, T]."""
        special = self.target.special
        if 'y' in rows:                                                                  # packed
            x, y = {name: value for name, value in rows.items() if name != 'y'}, rows['y']
        else:
            y = rows['target']
            x = {**self._inputs(rows['source']), 'target': special.shifted(y)}
        return x, y, tf.cast(y != special.pad, tf.float32)

    def _inputs(self, source):
        return {'source': source, 'source_mask': source != self.source.special.pad}

    # --- Learning ---

    def loss(self, y, outputs, weights, training=False):
        return weighted(cross_entropy(y, outputs, self.settings.label_smoothing if training else 0.), weights)

    def metrics(self, y, outputs, weights):
        correct = tf.argmax(outputs, axis=-1, output_type=y.dtype) == y                  # [B, T]
        return {'token_accuracy': weighted(correct, weights)}

    def results(self, totals):
        values = super().results(totals)
        if 'count' in totals and 'loss' in values:
            values['perplexity'] = float(tf.exp(values['loss']))
        return values

    # --- What the model writes ---

    def answers(self, model, x):
        ids, _ = self.translate(model, x['source'])
        return ids

    def compare(self, answers, source):
        name = self.roles['target']
        parts = [range(i, min(i + CHUNK, len(answers))) for i in range(0, len(answers), CHUNK)]
        references = [text for part in parts
                      for text in source.gather(tf.constant(part, tf.int64), [name])[name].numpy()]
        hypotheses = [text for part in parts for text in self.decode(answers[part]).numpy()]
        both = ([text.decode('utf-8', 'replace') for text in texts] for texts in (hypotheses, references))
        return corpus_scores(*both, self.language)

    def decode(self, ids):
        """int [B, T] -> string [B]."""
        return self.target.tokenizer.decode(ids)

    def translate(self, model, source):
        """source int32 [B, S] -> a translation int32 [B, T] and its log-probability float32 [B].

        A source without words is not decoded; its translation is empty.
        """
        ids, log_p = self._decode(model, source)
        nothing = source[:, 0] == self.source.special.end
        return tf.where(nothing[:, None], self.target.special.pad, ids), tf.where(nothing, 0., log_p)

    def _decode(self, model, source):
        x, length, special, settings = self._inputs(source), self.target.length, self.target.special, self.settings
        if self.sampling:
            return decoding.sample(model, x, length, special, **self.sampling)
        if settings.beam_size == 1:
            return decoding.greedy(model, x, length, special)
        ids, log_p = decoding.beam_search(model, x, length, special, settings.beam_size, settings.length_penalty)
        return ids[:, 0], log_p[:, 0]

    # --- TensorBoard, serving, people ---

    def show_answers(self, model, source):
        """The first texts, their references and what the model writes."""
        sides = [self.roles['source'], self.roles['target']]
        texts, references = source.gather(tf.range(min(SHOWN, source.num_examples), dtype=tf.int64), sides).values()
        answers = self.serving(model)['serving_default'][0](texts)['text']
        rows = zip(*(column.numpy() for column in (texts, references, answers)))
        return {'samples': [['source', 'expected', 'answer'],
                            *([text.decode('utf-8', 'replace') for text in row] for row in rows)]}

    def serving(self, model):
        """Strings [B] in, strings [B] out; or ids of tokens, int32 [B, S] in, int32 [B, T] out.

        With each answer comes its `log_probability`, float32 [B]; with that to a string also `cut`, bool [B]: whether
        the string was too long.
        """
        if self.sampling:      # checked here: what is raised in a traced function is another error
            decoding.check_sampling(**{name: value for name, value in self.sampling.items() if name != 'draws'})
        spec = tf.TensorSpec([None, self.source.length], tf.int32, name='ids')

        @tf.function(input_signature=[spec])      # one graph of the decoder, for both
        def tokens(ids):
            ids, log_p = self.translate(model, ids)
            return {'output_ids': ids, 'log_probability': log_p}      # ONNX knows tensors by name: not `ids` again

        def texts(texts):
            answer = tokens(self.source(texts))
            return {'text': self.decode(answer['output_ids']), 'log_probability': answer['log_probability'],
                    'cut': self.source.is_cut(texts)}

        return {'serving_default': (texts, [tf.TensorSpec([None], tf.string, name='texts')]),
                'tokens': (tokens, [spec])}

    def served_inputs(self, examples):
        texts = examples[self.roles['source']]
        return {'serving_default': [texts], 'tokens': [self.source(texts)]}

    def score_served(self, outputs, source):
        return self.compare(outputs['output_ids'], source)

    def predict(self, model, text):
        return ask_texts(self.serving(model)['serving_default'][0], text)

    def describe(self, asked, answer):
        cut = f' (only its first {self.source.length - 1} tokens)' if answer['cut'] else ''
        return f'{asked}{cut} -> {answer["text"]}'
