"""Text pairs as token ids. The tokenisers are TensorFlow ops only, so a SavedModel can take and give plain strings.

Letters of shapes: B examples, T tokens of the target, S tokens of the source.
"""

import tensorflow as tf

PADDING, START, END, UNKNOWN = range(4)
SPECIAL = ['', '', '', '�']      # what decode() shows for them


class Tokenizer(tf.Module):
    """Strings [B] <-> ids [B, length] with a fixed vocabulary. Subclasses say what a token is.

    A tf.Module, so that `tf.saved_model.save` finds the look-up table of an object that holds it.
    """

    def __init__(self, tokens):
        super().__init__()
        self.tokens = tuple(tokens)
        first, last = len(SPECIAL), len(SPECIAL) + len(self.tokens)
        if len(set(self.tokens)) != len(self.tokens):
            raise ValueError(f'`tokens` must all differ. Received: {self.tokens}')
        ids = tf.lookup.KeyValueTensorInitializer(list(self.tokens), tf.range(first, last, dtype=tf.int64))
        self._ids = tf.lookup.StaticHashTable(ids, default_value=UNKNOWN)

    @property
    def vocabulary_size(self):
        return len(SPECIAL) + len(self.tokens)

    def split(self, strings):
        """string [B] -> ragged string [B, (tokens)]."""
        raise NotImplementedError

    def join(self, tokens):
        """ragged string [B, (tokens)] -> string [B]."""
        raise NotImplementedError

    def encode(self, strings, length):
        """string [B] -> int32 [B, length]: the tokens and END, then PADDING; a longer text is cut, END is kept."""
        tokens = self.split(valid_utf8(strings))[:, :length - 1]
        ids = tf.concat([self._ids.lookup(tokens), tf.fill([tf.shape(strings)[0], 1], tf.cast(END, tf.int64))], axis=1)
        ids = tf.ensure_shape(ids.to_tensor(PADDING, shape=[None, length]), [strings.shape[0], length])
        return tf.cast(ids, tf.int32)

    def decode(self, ids):
        """int [B, T] -> string [B]: the tokens before the first END."""
        ended = tf.cumsum(tf.cast(ids == END, tf.int32), axis=1) > 0
        tokens = tf.gather(tf.constant(SPECIAL + list(self.tokens)), ids)                 # string [B, T]
        return self.join(tf.ragged.boolean_mask(tokens, ~ended & (ids != PADDING) & (ids != START)))


class WordTokenizer(Tokenizer):
    """Lower-case words; a punctuation mark or symbol is a token. decode() puts hyphens back into their words."""

    def split(self, strings):
        strings = tf.strings.lower(strings, encoding='utf-8')
        strings = tf.strings.regex_replace(strings, r'[\pZ\pC]', ' ')
        return tf.strings.split(tf.strings.regex_replace(strings, r'([^\pL\pM\pN ])', r' \1 '))

    def join(self, tokens):
        return tf.strings.regex_replace(tf.strings.reduce_join(tokens, axis=1, separator=' '), ' - ', '-')


class CharacterTokenizer(Tokenizer):
    """Unicode characters, for scripts without spaces between words."""

    def split(self, strings):
        return tf.strings.unicode_split(strings, 'UTF-8')

    def join(self, tokens):
        return tf.strings.reduce_join(tokens, axis=1)


def valid_utf8(strings):
    """Replaces what is not UTF-8 by U+FFFD: a served request must not be able to raise."""
    return tf.strings.unicode_transcode(strings, 'UTF-8', 'UTF-8', errors='replace')


class TextPairFeatures(tf.Module):
    """Pairs of strings -> the source's ids, and the target's shifted by one (teacher forcing)."""

    kind = 'text'
    class_names = None

    def __init__(self, source_tokenizer, target_tokenizer, source_length, target_length):
        super().__init__()
        self.source_tokenizer, self.target_tokenizer = source_tokenizer, target_tokenizer
        self.source_length, self.target_length = source_length, target_length

    @property
    def sizes(self):
        return {'source_vocabulary_size': self.source_tokenizer.vocabulary_size,
                'target_vocabulary_size': self.target_tokenizer.vocabulary_size}

    def raw(self, examples):
        return examples['source']

    def inputs(self, strings):
        """string [B] -> int32 [B, S]."""
        return self.source_tokenizer.encode(strings, self.source_length)

    def batch(self, examples):
        """-> {'source': [B, S], 'target': START + tokens [B, T]}, tokens + END [B, T], 1. on real tokens [B, T]."""
        y = self.target_tokenizer.encode(examples['target'], self.target_length)
        tokens = tf.where(y == END, PADDING, y)[:, :-1]
        target = tf.pad(tokens, [[0, 0], [1, 0]], constant_values=START)
        return {'source': self.inputs(examples['source']), 'target': target}, y, tf.cast(y != PADDING, tf.float32)

    def decode(self, ids):
        """int [B, T] -> string [B]."""
        return self.target_tokenizer.decode(ids)
