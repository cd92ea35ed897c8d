"""Words or characters as tokens, by a table. TensorFlow ops only, so a SavedModel can take and give plain strings."""

import json
from collections import Counter

import tensorflow as tf

from data.tokenizers.special import PLAIN, valid_utf8
from errors import UserError

SPECIAL = ['', '', '', '\ufffd']      # what decode() shows for them
NAMES = ('<pad>', '<s>', '</s>', '<unk>')      # what pieces() does


class Tokenizer(tf.Module):
    """Strings [B] <-> ids [B, length] with a fixed vocabulary. Subclasses say what a token is.

    A tf.Module, so that `tf.saved_model.save` finds the look-up table of an object that holds it.
    """

    special = PLAIN

    def __init__(self, tokens):
        super().__init__()
        self.tokens = tuple(tokens)
        first, last = len(SPECIAL), len(SPECIAL) + len(self.tokens)
        if len(set(self.tokens)) != len(self.tokens):
            raise ValueError(f'`tokens` must all differ. Received: {self.tokens}')
        ids = tf.lookup.KeyValueTensorInitializer(list(self.tokens), tf.range(first, last, dtype=tf.int64))
        self._ids = tf.lookup.StaticHashTable(ids, default_value=self.special.unknown)

    @property
    def vocabulary_size(self):
        return len(SPECIAL) + len(self.tokens)

    @property
    def files(self):
        """{name: bytes} from which `load_tokenizer` makes it again."""
        return {f'{self.kind}.json': (json.dumps(self.tokens, ensure_ascii=False, indent=0) + '\n').encode()}

    @classmethod
    def from_files(cls, files):
        return cls(json.loads(files[f'{cls.kind}.json']))

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
        """string [B] -> int32 [B, length]: the tokens and the end, then padding; a longer text is truncated."""
        return self.special.end_and_pad(self._ids.lookup(self.split(valid_utf8(strings))), length, strings.shape[0])

    def decode(self, ids):
        """int [B, T] -> string [B]: the tokens before the first end."""
        return self.join(tf.gather(tf.constant(SPECIAL + list(self.tokens)), self.special.before_end(ids)))


class WordTokenizer(Tokenizer):
    """Lower-case words; a punctuation mark or symbol is a token. decode() puts hyphens back into their words."""

    kind = 'words'

    def split(self, strings):
        return split_words(strings)

    def join(self, tokens):
        return tf.strings.regex_replace(tf.strings.reduce_join(tokens, axis=1, separator=' '), ' - ', '-')


class CharacterTokenizer(Tokenizer):
    """Unicode characters, for scripts without spaces between words."""

    kind = 'characters'

    def split(self, strings):
        return tf.strings.unicode_split(strings, 'UTF-8')

    def join(self, tokens):
        return tf.strings.reduce_join(tokens, axis=1)


def split_words(strings):
    """string [B] -> ragged string [B, (words)], lower case."""
    strings = tf.strings.lower(strings, encoding='utf-8')
    strings = tf.strings.regex_replace(strings, r'[\pZ\pC]', ' ')
    return tf.strings.split(tf.strings.regex_replace(strings, r'([^\pL\pM\pN ])', r' \1 '))


def train_words(chunks, vocabulary_size):
    """The WordTokenizer of the most frequent words; of equally frequent ones the first in alphabetical order.

    Args:
        chunks: iterable of string tensors [n].
        vocabulary_size: tokens at most, the 4 special ones included.
    """
    if vocabulary_size <= len(SPECIAL):
        raise UserError(f'`vocabulary_size` must be above {len(SPECIAL)}, the number of special tokens. '
                        f'Received: vocabulary_size={vocabulary_size}')
    counts = Counter()
    for strings in chunks:
        counts.update(split_words(valid_utf8(strings)).flat_values.numpy().tolist())
    ranked = sorted(counts, key=lambda word: (-counts[word], word))[:vocabulary_size - len(SPECIAL)]
    return WordTokenizer([word.decode() for word in ranked])
