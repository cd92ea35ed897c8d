"""Text pairs as token ids. The tokenisers are TensorFlow ops only, so a SavedModel can take and give plain strings.

Letters of shapes: B examples, T tokens of the target, S tokens of the source.
"""

import importlib

import tensorflow as tf

from errors import UserError

PADDING, START, END, UNKNOWN = range(4)
SPECIAL = ['', '', '', '�']      # what decode() shows for them
NAMES = ('<pad>', '<s>', '</s>', '<unk>')      # what pieces() does


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

    def pieces(self, ids):
        """ids int [T] -> what each stands for, a list of strings, to be shown."""
        return [(NAMES + self.tokens)[int(i)] for i in ids]

    def split(self, strings):
        """string [B] -> ragged string [B, (tokens)]."""
        raise NotImplementedError

    def join(self, tokens):
        """ragged string [B, (tokens)] -> string [B]."""
        raise NotImplementedError

    def encode(self, strings, length):
        """string [B] -> int32 [B, length]: the tokens and END, then PADDING; a longer text is cut, END is kept."""
        return end_and_pad(self._ids.lookup(self.split(valid_utf8(strings))), length, strings.shape[0])

    def decode(self, ids):
        """int [B, T] -> string [B]: the tokens before the first END."""
        return self.join(tf.gather(tf.constant(SPECIAL + list(self.tokens)), before_end(ids)))


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


def end_and_pad(ids, length, batch_size):
    """Ragged int64 [B, (tokens)] -> int32 [B, length]: the tokens, cut if need be, and END, then PADDING.

    batch_size: static B, or None.
    """
    ids = ids[:, :length - 1]
    ids = tf.concat([ids, tf.fill([ids.nrows(), 1], tf.cast(END, tf.int64))], axis=1)
    ids = tf.ensure_shape(ids.to_tensor(PADDING, shape=[None, length]), [batch_size, length])
    return tf.cast(ids, tf.int32)


def before_end(ids):
    """int [B, T] -> ragged int [B, (tokens)]: the tokens before the first END, without PADDING and START."""
    ended = tf.cumsum(tf.cast(ids == END, tf.int32), axis=1) > 0
    return tf.ragged.boolean_mask(ids, ~ended & (ids != PADDING) & (ids != START))


def text_package(name):
    """Imports a package of the extra `text`, which only some datasets need."""
    try:
        return importlib.import_module(name)
    except (ImportError, tf.errors.NotFoundError) as error:      # the latter: built for another TensorFlow
        raise UserError(f'`dataset` needs the package {name}, which cannot be imported '
                        f'({" ".join(str(error).split())[:200]}): pip install -e ".[text]"') from None


def valid_utf8(strings):
    """Replaces what is not UTF-8 by U+FFFD: a served request must not be able to raise."""
    return tf.strings.unicode_transcode(strings, 'UTF-8', 'UTF-8', errors='replace')


class TextPairFeatures(tf.Module):
    """Pairs of strings -> the source's ids, and the target's shifted by one (teacher forcing)."""

    kind = 'text'
    class_names = None

    def __init__(self, source_tokenizer, target_tokenizer, source_length, target_length, target_language=''):
        super().__init__()
        self.target_language = target_language      # its code, if that is known
        self.source_tokenizer, self.target_tokenizer = source_tokenizer, target_tokenizer
        self.source_length, self.target_length = source_length, target_length

    @property
    def tokenizer_model(self):
        """The bytes of the tokeniser that was trained for both sides (see subwords.py); b'' if none was."""
        return getattr(self.source_tokenizer, 'model', b'')

    @property
    def sizes(self):
        return {'source_vocabulary_size': self.source_tokenizer.vocabulary_size,
                'target_vocabulary_size': self.target_tokenizer.vocabulary_size}

    def raw(self, examples):
        return examples['source']

    def inputs(self, strings):
        """string [B] -> int32 [B, S]."""
        return self.source_tokenizer.encode(strings, self.source_length)

    def is_cut(self, strings):
        """string [B] -> bool [B]: whether the model sees less than the whole text."""
        return self.source_tokenizer.encode(strings, self.source_length + 1)[:, -1] != PADDING

    def batch(self, examples):
        """-> {'source': [B, S], 'target': START + tokens [B, T]}, tokens + END [B, T], 1. on real tokens [B, T]."""
        y = self.target_tokenizer.encode(examples['target'], self.target_length)
        tokens = tf.where(y == END, PADDING, y)[:, :-1]
        target = tf.pad(tokens, [[0, 0], [1, 0]], constant_values=START)
        return {'source': self.inputs(examples['source']), 'target': target}, y, tf.cast(y != PADDING, tf.float32)

    def decode(self, ids):
        """int [B, T] -> string [B]."""
        return self.target_tokenizer.decode(ids)
