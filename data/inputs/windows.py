"""A question and a text in which to look for the answer, as rows of tokens: windows over texts that are too long.

    [CLS] question [SEP] part of the text [SEP] padding

Letters of shapes: B questions, W windows, T tokens of a window.
"""

import tensorflow as tf

from errors import UserError

FRAME = 3               # [CLS] and two [SEP]


class Windows:
    """Strings [B], twice -> {name: [W, ...]}, in the order of the questions; each has one window at least.

    Args:
        tokenizer: a WordPieceTokenizer. length: T. stride: tokens from the beginning of a window's part of the text to
            that of the next. most: tokens of a question that are read.

    Raises:
        UserError: the windows would leave out tokens.
    """

    def __init__(self, tokenizer, length, stride, most):
        room = length - FRAME - most
        if stride > room:
            raise UserError(f'`stride` must be at most {max(room, 0)}, the tokens of a text beside a question of '
                            f'{most} in a window of {length}: others would be in no window. '
                            f'Received: stride={stride}, max_length={length}')
        self.tokenizer, self.length, self._stride, self._most = tokenizer, length, stride, most

    def __call__(self, questions, contexts):
        """
        Returns:
            ids, segments: int32 [W, T], segments 1 in the text and the [SEP] behind it.
            begins, ends: int32 [W, T], the bytes of the text from which to which a token stands; -1 for others.
            example: int64 [W], the question of each window.
        """
        question, _, _ = self.tokenizer.tokenize(questions)                               # ragged [B, (q)]
        question = question[:, :self._most]
        context, begins, ends = self.tokenizer.tokenize(contexts)                         # ragged [B, (n)]
        sizes, room = context.row_lengths(), self.length - FRAME - question.row_lengths()             # [B]
        over, stride = tf.maximum(sizes - room, 0), tf.constant(self._stride, tf.int64)
        count = 1 + (over + stride - 1) // stride                                         # windows of each, [B]
        example = tf.repeat(tf.range(question.nrows()), count)                            # [W]
        number = tf.range(tf.reduce_sum(count)) - tf.gather(tf.cumsum(count, exclusive=True), example)
        first = number * stride                                                           # token of the text, [W]
        take = tf.minimum(tf.gather(room, example), tf.gather(sizes, example) - first)
        place = tf.range(self.length, dtype=tf.int64)[None]                               # [1, T]
        behind = place - tf.gather(question.row_lengths(), example)[:, None] - 1          # 0 at the first [SEP]
        at = behind - 1                                                                   # 0 at the text's first token
        is_question, is_context = (place > 0) & (behind < 0), (at >= 0) & (at < take[:, None])
        in_question = _starts(question, example) + place - 1
        in_context = _starts(context, example) + first[:, None] + at
        special = self.tokenizer.special
        ids = tf.where(is_question, _taken(question, in_question, is_question),
                       tf.where(is_context, _taken(context, in_context, is_context),
                                tf.where(place == 0, tf.constant(special.start, tf.int64),
                                         tf.where((behind == 0) | (at == take[:, None]),
                                                  tf.constant(special.end, tf.int64), special.pad))))
        begins, ends = (tf.where(is_context, _taken(part, in_context, is_context), -1) for part in (begins, ends))
        segments = (at >= 0) & (at <= take[:, None])
        found = {'ids': ids, 'segments': segments, 'begins': begins, 'ends': ends}
        shape = [None, self.length]
        return {**{name: tf.ensure_shape(tf.cast(t, tf.int32), shape) for name, t in found.items()}, 'example': example}


def _starts(ragged, example):
    """Where the rows of `example` [W] start among the values, [W, 1]."""
    return tf.gather(ragged.row_starts(), example)[:, None]


def _taken(ragged, places, there):
    """The values at places [W, T], 0 where they are not there."""
    values = tf.concat([ragged.values, [0]], axis=0)
    return tf.gather(values, tf.where(there, places, tf.size(values, tf.int64) - 1))


def covering(windows, start, end):
    """The first and last token of an answer in each window, int32 [W], twice; 0, [CLS], where it is not whole.

    Args:
        windows: of a Windows. start, end: int64 [B], the bytes of the text from which to which it stands.
    """
    start, end = (tf.cast(tf.gather(t, windows['example']), tf.int32)[:, None] for t in (start, end))     # [W, 1]
    begins, ends = windows['begins'], windows['ends']
    is_context = begins >= 0
    is_answer = is_context & (ends > start) & (begins < end)
    earliest = tf.reduce_min(tf.where(is_context, begins, tf.int32.max), axis=1, keepdims=True)
    latest = tf.reduce_max(ends, axis=1, keepdims=True)
    whole = tf.reduce_any(is_answer & (earliest <= start) & (latest >= end), axis=1)
    first = tf.argmax(is_answer, axis=1, output_type=tf.int32)
    last = begins.shape[1] - 1 - tf.argmax(is_answer[:, ::-1], axis=1, output_type=tf.int32)
    return tf.where(whole, first, 0), tf.where(whole, last, 0)
