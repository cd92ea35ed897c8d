"""Subwords: byte-pair encoding by SentencePiece (arXiv:1508.07909, arXiv:1808.06226).

What the training split has no token for is spelt in bytes, so nothing is unknown. Text is normalised to Unicode's NFC,
and a run of white space or control characters to one space; nothing else of it changes, so `decode` gives it back.
"""

import io
import re
import tempfile
import unicodedata
from pathlib import Path

import tensorflow as tf

from data.tokenizers.packages import text_package
from data.tokenizers.special import PLAIN, valid_utf8
from data.tokenizers.wire import without
from errors import UserError

COVERAGE = 0.9995                       # of the text's characters have tokens; the rest, rare, is spelt in bytes
RULES_FILE = 3, 6                       # of a model: normalizer_spec, normalization_rule_tsv


class SubwordTokenizer(tf.Module):
    """Strings [B] <-> ids [B, length], as words.Tokenizer, by a SentencePiece model, in the graph.

    Args:
        model: the bytes that `train_subwords` returned.

    Raises:
        UserError: they are no such model, or tensorflow-text is missing.
    """

    special = PLAIN

    def __init__(self, model):
        super().__init__()
        self.model, self._library = model, text_package('tensorflow_text')
        try:
            self.vocabulary_size = int(self._sentencepiece().vocab_size())
        except tf.errors.OpError:
            raise UserError(f'`tokenizer` must be a SentencePiece model. Received: {len(model)} bytes, '
                            f'beginning with {model[:20]!r}') from None

    @property
    def files(self):
        return {'subwords.model': self.model}

    @classmethod
    def from_files(cls, files):
        return cls(files['subwords.model'])

    def _sentencepiece(self):
        # Made anew for each graph, not held: tensorflow-text's resource belongs to the op that made it, and
        # `set_random_seed` clears the cache of eager ops. Here it lives as long as the graph that uses it; an eager
        # call finds the op in that cache (0.25 ms), or it is made again. A SavedModel then holds the model, too.
        return self._library.SentencepieceTokenizer(self.model)

    def encode(self, strings, length):
        """string [B] -> int32 [B, length]: the tokens and the end, then padding; a longer text is truncated."""
        strings = self._library.normalize_utf8(valid_utf8(strings), 'NFC')
        ids = self._sentencepiece().tokenize(strings)
        return self.special.end_and_pad(tf.cast(ids, tf.int64), length, strings.shape[0])

    def decode(self, ids):
        """int [B, T] -> string [B]: the tokens before the first end; bytes that are not UTF-8 become U+FFFD."""
        return self._sentencepiece().detokenize(self.special.before_end(tf.cast(ids, tf.int32)))

    def pieces(self, ids):
        """ids int [T] -> the subwords, a list of strings, to be shown; a space before a word is a low line."""
        return [piece.decode() for piece in self._sentencepiece().id_to_string(ids).numpy()]


def train_subwords(sentences, vocabulary_size):
    """Trains byte-pair encoding on strings. The same strings give the same bytes.

    Args:
        vocabulary_size: number of tokens, among them 4 special ones and 256 bytes.

    Returns:
        The serialised model, whose special ids are those of special.PLAIN.

    Raises:
        UserError: the text does not allow that size, or sentencepiece is missing.
    """
    sentencepiece, written = text_package('sentencepiece'), io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder) / 'rules.tsv'
        rules.write_text(_white_space_rules(), encoding='utf-8')
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(sentences), model_writer=written, model_type='bpe', vocab_size=vocabulary_size,
                pad_id=PLAIN.pad, bos_id=PLAIN.start, eos_id=PLAIN.end, unk_id=PLAIN.unknown, unk_surface='\ufffd',
                byte_fallback=True, character_coverage=COVERAGE, normalization_rule_tsv=str(rules),
                num_threads=1, shuffle_input_sentence=False, minloglevel=2)
        except (RuntimeError, OSError) as error:
            raise UserError(_explain(str(error), vocabulary_size)) from None
    # A model names the file of its rules: in a temporary folder, another one each time.
    return without(written.getvalue(), *RULES_FILE)


def _white_space_rules():
    """SentencePiece's table of replacements: all white space and control characters, but NUL, become a space."""
    return ''.join(f'{code:X}\t20\n' for code in range(1, 0x110000)
                   if unicodedata.category(chr(code)) in ('Cc', 'Zs', 'Zl', 'Zp') and code != 0x20)


def _explain(message, vocabulary_size):
    most, least = re.search(r'value <= (\d+)', message), re.search(r'required_chars\. \d+ vs (\d+)', message)
    rule = (f'must be at most {most[1]} for this text' if most else
            f'must be at least {least[1]} for this text' if least else
            f'does not suit this text ({" ".join(message.split())[:200]})')
    return f'`vocabulary_size` {rule}. Received: vocabulary_size={vocabulary_size}'
