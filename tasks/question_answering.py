"""Extractive question answering: the part of a text that answers a question, arXiv:1810.04805, section 4.2.

Letters of shapes: B rows, each a window of a text, T tokens.
"""

import numpy as np
import tensorflow as tf
import tqdm

from data.dataset import Answers, Offsets, Text
from data.inputs.text import text_inputs
from data.inputs.windows import Windows, covering
from data.source import hash_arrays
from data.tokenizers.special import valid_utf8
from errors import UserError
from tasks.scores.question_answering import scores
from tasks.task import SHOWN, Task, ask_texts, cross_entropy, weighted

LENGTH = 384            # tokens of a window, by default
LONGEST = 30            # tokens of an answer
CHUNK = 256             # questions that are cut into windows at a time
NEVER = -1e9


class QuestionAnswering(Task):
    """x is {'ids': int32 [B, T], 'mask': bool [B, T], 'segments': int32 [B, T]}, y int32 [B, 2].

    y is the first and the last token of the answer. A window that does not hold the whole answer learns to point at
    [CLS]. The answer to a question is the best span of all its windows, by the sum of the two logits: at most LONGEST
    tokens, none of them of the question.

    Metrics: `span_accuracy` of the windows; `exact_match` and `f1` of the answers, as texts, see scores/.
    """

    name = 'question_answering'
    reads = 'questions'
    needs = {'question': Text, 'context': Text, 'answers': Answers, 'starts': Offsets}
    training_metrics = ('span_accuracy',)
    shown = ('exact_match', 'f1')
    best = ('f1', 1)

    def __init__(self, settings, dataset, data, tokenizer=None):
        super().__init__(settings, dataset, data, tokenizer)
        inputs = text_inputs(dataset, [self.roles['question'], self.roles['context']], data, tokenizer)
        self.tokenizer = inputs[self.roles['context']].tokenizer
        if self.tokenizer.special.mask is None:
            raise UserError('`tokenizer` of task question_answering must be wordpiece, whose tokens know their place '
                            f'in a text. Received: tokenizer={data.tokenizer!r}')
        self.windows = Windows(self.tokenizer, data.max_length or LENGTH, data.stride, data.question_length)
        self.tables, self.tokenizer_files = [self.tokenizer], self.tokenizer.files
        self.sizes = {'vocabulary_size': self.tokenizer.vocabulary_size, 'length': self.windows.length, 'spans': 2}
        self._evaluated = {}      # fingerprint of a source -> its rows

    # --- Data ---

    def rows(self, source, training=False):
        if training:
            return WindowRows(source, self.windows, self.roles)
        if source.fingerprint not in self._evaluated:
            self._evaluated[source.fingerprint] = WindowRows(source, self.windows, self.roles)
        return self._evaluated[source.fingerprint]

    def batch(self, rows, draws, training=False):
        y = tf.stack([rows['first'], rows['last']], axis=1)
        return self._inputs(rows['ids'], rows['segments']), y, tf.ones_like(y[:, 0], tf.float32)

    def _inputs(self, ids, segments):
        return {'ids': ids, 'mask': ids != self.tokenizer.special.pad, 'segments': segments}

    # --- Learning ---

    def loss(self, y, outputs, weights, training=False):
        both = [cross_entropy(y[:, i], outputs[..., i]) for i in range(2)]               # [B], twice
        return weighted((both[0] + both[1]) / 2., weights)

    def metrics(self, y, outputs, weights):
        right = tf.argmax(outputs, axis=1, output_type=y.dtype) == y                     # [B, 2]
        return {'span_accuracy': weighted(tf.reduce_all(right, axis=1), weights)}

    # --- What the model finds ---

    def find(self, outputs, x):
        """Logits [B, T, 2] -> first and last token int32 [B] of the best span, its logits' sum and probability [B]."""
        allowed = (x['segments'] == 1) & x['mask'] & (x['ids'] != self.tokenizer.special.end)        # [B, T]
        outputs = tf.cast(outputs, tf.float32)
        start, end = (tf.where(allowed, outputs[..., i], NEVER) for i in range(2))
        length = start.shape[1]
        sums = [start + tf.pad(end[:, k:], [[0, 0], [0, min(k, length)]], constant_values=NEVER)
                for k in range(min(LONGEST, length))]                                    # of spans of k + 1 tokens
        sums = tf.stack(sums, axis=2)                                                    # [B, T, spans]
        flat = tf.reshape(sums, [-1, length * sums.shape[2]])
        place = tf.argmax(flat, axis=1, output_type=tf.int32)
        first = place // sums.shape[2]
        total = tf.reduce_max(flat, axis=1)
        probability = tf.exp(total - tf.reduce_logsumexp(start, axis=1) - tf.reduce_logsumexp(end, axis=1))
        return {'first': first, 'last': first + place % sums.shape[2], 'total': total,
                'score': tf.where(total > NEVER / 2, probability, 0.)}

    def answers(self, model, x):
        return self.find(model(x, training=False), x)

    def rows_of(self, source):
        return self.rows(source).num_examples

    def compare(self, answers, source):
        rows = self.rows(source)
        best = rows.best(answers['total'])                                               # a row per question
        names = [self.roles[role] for role in ('context', 'answers')]
        examples = source.gather(tf.range(source.num_examples, dtype=tf.int64), names)
        contexts, references = (examples[name].numpy() for name in names)
        texts = [context[begin:end] for context, begin, end in zip(contexts, *rows.bytes_of(
            best, answers['first'][best], answers['last'][best]))]
        return {**scores([text.decode('utf-8', 'replace') for text in texts],
                         [[right.decode() for right in some if right] for some in references]),
                'count': source.num_examples}

    # --- Serving ---

    def decode(self, outputs, x):
        """What a window says for itself: {first, last, score}."""
        return {name: t for name, t in self.find(outputs, x).items() if name != 'total'}

    def serving(self, model):
        """Questions and contexts, strings [B]; or windows of token ids and segments, int32 [B, T]."""
        def tokens(ids, segments):
            x = self._inputs(ids, segments)
            return self.decode(model(x, training=False), x)

        def texts(questions, contexts):
            contexts = valid_utf8(contexts)
            windows = self.windows(questions, contexts)
            x = self._inputs(windows['ids'], windows['segments'])
            found = self.find(model(x, training=False), x)
            best = _best(found['total'], windows['example'], tf.size(contexts, tf.int64))                   # [B]
            first, last = (tf.gather(found[name], best) for name in ('first', 'last'))
            start = tf.maximum(tf.gather_nd(windows['begins'], tf.stack([best, tf.cast(first, tf.int64)], axis=1)), 0)
            end = tf.maximum(tf.gather_nd(windows['ends'], tf.stack([best, tf.cast(last, tf.int64)], axis=1)), 0)
            return {'text': tf.strings.substr(contexts, start, end - start), 'start': start, 'end': end,
                    'score': tf.gather(found['score'], best)}

        row = [None, self.windows.length]
        return {'serving_default': (texts, [tf.TensorSpec([None], tf.string, name='questions'),
                                            tf.TensorSpec([None], tf.string, name='contexts')]),
                'tokens': (tokens, [tf.TensorSpec(row, tf.int32, name='ids'),
                                    tf.TensorSpec(row, tf.int32, name='segments')])}

    def served_inputs(self, examples):
        questions, contexts = (examples[self.roles[role]] for role in ('question', 'context'))
        windows = self.windows(questions, contexts)
        return {'serving_default': [questions, contexts], 'tokens': [windows['ids'], windows['segments']]}

    def predict(self, model, question, context):
        """Questions about one text."""
        function, _ = self.serving(model)['serving_default']
        return ask_texts(lambda questions: function(questions, tf.fill(tf.shape(questions), context)), question)

    def describe(self, asked, answer):
        where = f'bytes {answer["start"]} to {answer["end"]}'
        return f'{asked}: {answer["text"] or "no answer"} ({answer["score"]:.1%}, {where})'

    # --- TensorBoard ---

    def show_answers(self, model, source):
        roles = ('question', 'context', 'answers')
        examples = source.gather(tf.range(min(SHOWN, source.num_examples), dtype=tf.int64),
                                 [self.roles[role] for role in roles])
        questions, contexts, answers = (examples[self.roles[role]] for role in roles)
        found = self.serving(model)['serving_default'][0](questions, contexts)['text']
        rows = zip(questions.numpy(), answers[:, 0].numpy(), found.numpy())
        return {'answers': [['question', 'answer', 'found'],
                            *([text.decode('utf-8', 'replace') for text in row] for row in rows)]}


def _best(total, example, count):
    """The window of the highest total [W] for each of `count` questions, int64 [B]; the first of equal ones."""
    highest = tf.math.unsorted_segment_max(total, example, count)
    numbers = tf.range(tf.size(total, tf.int64))
    is_best = total == tf.gather(highest, example)
    return tf.math.unsorted_segment_min(tf.where(is_best, numbers, tf.int64.max), example, count)


class WindowRows:
    """The windows of all questions of a source, made once. `gather` gives ids, segments [B, T], first, last [B]."""

    def __init__(self, source, windows, roles):
        chunks = [_cut(source, windows, roles, start) for start in tqdm.tqdm(
            range(0, source.num_examples, CHUNK), desc='windows', unit_scale=CHUNK, disable=None, leave=False)]
        arrays = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
        self._example, self._begins, self._ends = (arrays.pop(name) for name in ('example', 'begins', 'ends'))
        self.num_examples = len(self._example)
        self.fingerprint = hash_arrays({**arrays, 'source': np.array([source.fingerprint], object)})
        with tf.device('CPU:0'):
            self._arrays = {name: tf.constant(array) for name, array in arrays.items()}

    def gather(self, indices):
        return {name: tf.gather(array, indices) for name, array in self._arrays.items()}

    def best(self, total):
        """float32 [rows] -> the row of the highest total for each question, in order."""
        order = np.lexsort((-total, self._example))
        return order[np.unique(self._example[order], return_index=True)[1]]

    def bytes_of(self, rows, first, last):
        """Rows and their first and last tokens [N] -> from which to which byte of its text each stands."""
        return np.maximum(self._begins[rows, first], 0), np.maximum(self._ends[rows, last], 0)

    def __str__(self):
        return f'{self.num_examples:,} windows'


def _cut(source, windows, roles, start):
    indices = tf.range(start, min(start + CHUNK, source.num_examples), dtype=tf.int64)
    examples = source.gather(indices, list(roles.values()))
    found = windows(examples[roles['question']], examples[roles['context']])
    begins = examples[roles['starts']][:, 0]
    lengths = tf.cast(tf.strings.length(examples[roles['answers']][:, 0]), tf.int64)
    first, last = covering(found, begins, begins + lengths)
    return {'first': first.numpy(), 'last': last.numpy(), **{name: t.numpy() for name, t in found.items()},
            'example': found['example'].numpy() + start}
