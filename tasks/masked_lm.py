"""Masked language modelling, arXiv:1810.04805, section 3.1: some tokens of a text are hidden, and to be guessed.

Letters of shapes: B texts, T tokens, P hidden ones, V words.
"""

import math

import tensorflow as tf

from data.dataset import Text
from data.inputs.text import text_inputs
from data.tokenizers.wordpiece import MASK
from draws import Draws
from errors import UserError
from tasks.task import SHOWN, Task, ask_texts, cross_entropy, weighted

SHARE = 0.15                    # of a text's tokens that are guessed
AS_MASK, AS_RANDOM = 0.8, 0.1   # shares of those that are seen as [MASK], and as any word; the rest is seen as it is
BEST = 5                        # guesses that are served


class MaskedLM(Task):
    """x is {'ids': int32 [B, T], 'mask': bool [B, T], 'positions': int32 [B, P]}, y the tokens there, int32 [B, P].

    P is the same for all texts, and the weights are 0 for those that a short one has not: 15% of its tokens are
    guessed, at least one. Which, and what is seen in their place, is drawn anew in each step; in an evaluation it is
    always the same for a text.

    Metrics: `accuracy` of the guesses; `perplexity` = exp(loss).
    """

    name = 'masked_lm'
    reads = 'texts'
    needs = {'text': Text}
    training_metrics = ('accuracy',)
    shown = ('perplexity',)

    def __init__(self, settings, dataset, data, tokenizer=None):
        super().__init__(settings, dataset, data, tokenizer)
        name = self.roles['text']
        self.text = text_inputs(dataset, [name], data, tokenizer)[name]
        if self.text.special.mask is None:
            raise UserError('`tokenizer` of task masked_lm must be wordpiece, which has a token in place of hidden '
                            f'ones. Received: tokenizer={data.tokenizer!r}')
        if data.word_dropout:
            raise UserError('`word_dropout` must be 0 in task masked_lm, which hides words itself. '
                            f'Received: word_dropout={data.word_dropout}')
        self.tables, self.tokenizer_files = [self.text.tokenizer], self.text.tokenizer.files
        self.sizes = {**self.text.sizes, 'predictions': max(1, math.ceil(SHARE * (self.text.length - 2)))}

    # --- Data ---

    def prepare(self, examples):
        return {'ids': self.text(examples[self.roles['text']])}

    def batch(self, rows, draws, training=False):
        ids, (b, length), most = rows['ids'], rows['ids'].shape, self.sizes['predictions']
        are_words = self.text.special.are_words(ids)                                     # [B, T]
        # A word's rank is random; all others come after the words.
        noise = tf.where(are_words, draws.uniform('hidden', (b, length)), -1.)
        _, positions = tf.math.top_k(noise, most)                                        # [B, P], all different
        words = tf.reduce_sum(tf.cast(are_words, tf.float32), axis=1, keepdims=True)
        count = tf.minimum(tf.maximum(tf.round(SHARE * words), 1.), words)               # [B, 1]
        weights = tf.cast(tf.range(most, dtype=tf.float32) < count, tf.float32)          # [B, P]
        y = tf.gather(ids, positions, batch_dims=1)
        seen = tf.where(weights > 0., self._seen(y, draws), y)
        there = tf.one_hot(positions, length, dtype=tf.int32)                            # [B, P, T]
        ids = tf.where(tf.reduce_any(there > 0, axis=1), tf.reduce_sum(there * seen[..., None], axis=1), ids)
        return {**self._inputs(ids), 'positions': positions}, y, weights

    def _seen(self, y, draws):
        """int32 [B, P] -> what stands in the place of each, int32 [B, P]."""
        kind = draws.uniform('seen', tuple(y.shape))
        words = tf.cast(draws.uniform('word', tuple(y.shape)) * self.text.tokenizer.vocabulary_size, tf.int32)
        return tf.where(kind < AS_MASK, self.text.special.mask, tf.where(kind < AS_MASK + AS_RANDOM, words, y))

    def _inputs(self, ids):
        return {'ids': ids, 'mask': ids != self.text.special.pad}

    # --- Learning ---

    def loss(self, y, outputs, weights, training=False):
        return weighted(cross_entropy(y, outputs, self.settings.label_smoothing if training else 0.), weights)

    def metrics(self, y, outputs, weights):
        correct = tf.argmax(outputs, axis=-1, output_type=y.dtype) == y                  # [B, P]
        return {'accuracy': weighted(correct, weights)}

    def results(self, totals):
        values = super().results(totals)
        if 'count' in totals and 'loss' in values:
            values['perplexity'] = float(tf.exp(values['loss']))
        return values

    # --- TensorBoard ---

    def show_answers(self, model, source):
        """What was hidden in some texts, and what was guessed."""
        indices = tf.range(min(SHOWN, source.num_examples), dtype=tf.int64)
        rows = self.prepare(source.gather(indices, list(self.roles.values())))
        x, y, weights = self.batch(rows, Draws(0))
        guesses, pieces = tf.argmax(model(x, training=False), axis=-1).numpy(), self.text.tokenizer.pieces
        table = [['seen', 'hidden', 'guessed']]
        for ids, *answers, there in zip(x['ids'].numpy(), y.numpy(), guesses, weights.numpy() > 0):
            table.append([' '.join(pieces(some)) for some in (ids[ids != self.text.special.pad],
                                                              *(words[there] for words in answers))])
        return {'guesses': table}

    # --- Serving ---

    def decode(self, outputs, there):
        """logits [B, P, V] and bool [B, P], whether a token is asked for -> the best words and their probabilities.

        words: string [B, P, BEST], '' where none is asked for; probabilities: float32 [B, P, BEST].
        """
        probabilities, words = tf.math.top_k(tf.nn.softmax(tf.cast(outputs, tf.float32)), min(BEST, outputs.shape[-1]))
        words = tf.gather(tf.constant(self.text.tokenizer.vocabulary), words)
        return {'words': tf.where(there[..., None], words, ''),
                'probabilities': tf.where(there[..., None], probabilities, 0.)}

    def serving(self, model):
        """Strings [B], in which [MASK] stands for a word: the first P of them are guessed. Or ids int32 [B, T]."""
        most, mask = self.sizes['predictions'], self.text.special.mask

        def tokens(ids):
            is_mask = tf.cast(ids == mask, tf.int32)                                     # [B, T]
            order = is_mask * (self.text.length - tf.range(self.text.length))            # the first ones are highest
            found, positions = tf.math.top_k(order, most)
            logits = model({**self._inputs(ids), 'positions': positions}, training=False)
            return self.decode(logits, found > 0)

        def texts(texts):
            longer = self._masked(texts, self.text.length + 1)
            return {**tokens(self._masked(texts, self.text.length)), 'cut': longer[:, -1] != self.text.special.pad}

        return {'serving_default': (texts, [tf.TensorSpec([None], tf.string, name='texts')]),
                'tokens': (tokens, [tf.TensorSpec([None, self.text.length], tf.int32, name='ids')])}

    def served_inputs(self, examples):
        texts = tf.strings.join([f'{MASK} ', examples[self.roles['text']]])
        return {'serving_default': [texts], 'tokens': [self._masked(texts, self.text.length)]}

    def _masked(self, texts, length):
        return self.text.tokenizer.encode_masked(texts, length, MASK)

    def predict(self, model, text):
        answers = ask_texts(self.serving(model)['serving_default'][0], text)
        words = [[[word.decode() for word in best] for best in row if best[0]] for row in answers['words']]
        probabilities = [row[:len(best)] for row, best in zip(answers['probabilities'], words)]
        return {'words': words, 'probabilities': probabilities, 'cut': answers['cut']}

    def describe(self, asked, answer):
        guesses = [', '.join(f'{word} {p:.1%}' for word, p in zip(words, probabilities))
                   for words, probabilities in zip(answer['words'], answer['probabilities'])]
        return f'{asked}: ' + ('; '.join(guesses) or f'no {MASK} in its first {self.text.length - 1} tokens')
