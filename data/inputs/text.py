"""Texts to token ids, and the tokenizer that does it: the run's own, the data set's, or one trained on the train split.

Letters of shapes: B examples, T tokens.
"""

import tensorflow as tf

from data.tokenizers.subwords import SubwordTokenizer, train_subwords
from data.tokenizers.wordpiece import WordPieceTokenizer, train_wordpiece
from data.tokenizers.words import CharacterTokenizer, WordTokenizer, train_words
from errors import RunError, UserError

VOCABULARY_SIZE, LENGTH = 8_000, 64     # defaults
TEXTS = 1_000_000                       # a tokenizer is trained on at most N texts, evenly spaced
CHUNK = 8_192
LOADERS = {'words.json': WordTokenizer, 'characters.json': CharacterTokenizer, 'subwords.model': SubwordTokenizer,
           'vocab.txt': WordPieceTokenizer}


class TextInput:
    """Strings -> int32 [B, T].

    Args:
        tokenizer: see data/tokenizers. length: T.
    """

    def __init__(self, tokenizer, length):
        if length < 2:
            raise UserError(f'`max_length` must be at least 2, a token and the end. Received: max_length={length}')
        self.tokenizer, self.length = tokenizer, length

    @property
    def special(self):
        return self.tokenizer.special

    @property
    def sizes(self):
        return {'vocabulary_size': self.tokenizer.vocabulary_size, 'length': self.length}

    def __call__(self, strings):
        """string [B] -> int32 [B, T]."""
        return self.tokenizer.encode(strings, self.length)

    def is_cut(self, strings):
        """string [B] -> bool [B]: whether the model sees less than the whole text."""
        return self.tokenizer.encode(strings, self.length + 1)[:, -1] != self.special.pad


def text_inputs(dataset, names, data, files=None):
    """{name: TextInput} of fields that share one tokenizer, unless the data set brings one for each.

    Args:
        data: the recipe's section of texts: `tokenizer`, `vocabulary_size` and `max_length`.
        files: {file name: bytes} of the run's own tokenizer; it goes before all others.

    Raises:
        UserError: the section asks for what the data set decides. RunError: the files hold no tokenizer.
    """
    fields = {name: dataset.fields[name] for name in names}
    if all(field.tokenizer for field in fields.values()):
        for name, value in (('tokenizer', data.tokenizer), ('vocabulary_size', data.vocabulary_size)):
            if value:
                raise UserError(f'`{name}` is for datasets without a tokenizer of their own; {dataset.name} has one. '
                                f'Received: {name}={value!r}')
        return {name: TextInput(field.tokenizer, data.max_length or field.length) for name, field in fields.items()}
    tokenizer = load_tokenizer(files) if files else _train(dataset, names, data)
    return {name: TextInput(tokenizer, data.max_length or LENGTH) for name in names}


def load_tokenizer(files):
    """The tokenizer that a tokenizer's `files` hold."""
    for name in files:
        if name in LOADERS:
            return LOADERS[name].from_files(files)
    raise RunError(f'the folder of the run\'s tokenizer holds none of {", ".join(LOADERS)}. '
                   f'Found: {", ".join(files) or "nothing"}')


def _train(dataset, names, data):
    vocabulary_size, texts = data.vocabulary_size or VOCABULARY_SIZE, _texts(dataset.train, names)
    if data.tokenizer == 'words':
        return train_words(texts, vocabulary_size)
    strings = (text for chunk in texts for text in chunk.numpy())
    if data.tokenizer == 'wordpiece':
        return train_wordpiece(strings, vocabulary_size)
    return SubwordTokenizer(train_subwords(strings, vocabulary_size))


def _texts(source, names):
    """The texts of some fields, as tensors [n]: all, or TEXTS evenly spaced ones."""
    step = max(1, -(-len(names) * source.num_examples // TEXTS))
    for start in range(0, source.num_examples, CHUNK * step):
        indices = tf.range(start, min(start + CHUNK * step, source.num_examples), step, dtype=tf.int64)
        examples = source.gather(indices, names)
        yield from (examples[name] for name in names)
