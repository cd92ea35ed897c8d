"""WordPiece: every id and every byte offset as Hugging Face's tokenizers has them."""

import contextlib
import gettext
import pathlib
import subprocess
import sys
import unicodedata
from pydoc_data import topics

import pytest
import tensorflow as tf
import tokenizers

from data.inputs.text import load_tokenizer
from data.tokenizers.wordpiece import SPECIAL, UNKNOWN, WordPieceTokenizer, train_wordpiece
from errors import UserError

TEXTS = [text.encode() for text in topics.topics.values()]
SLICE, MESSAGES = 200, 10_000
ODD = ['', ' ', '\t\n', 'Café naïve … ﬁ ² 价格: ६५ rupees', 'a' * 100, 'a' * 101, 'unaffable' * 5, 'İstanbul ıŞğ',
       '中文字test中', '👩‍👩‍👧‍👧 family', '\x00a\ufffdb', '[CLS] [MASK] [mask]', 'a\u200bb\u00adc', 'e\u0301\u0301',
       'a\U0010ffff', 'a\U0010fff0b', '\U00050000', '\ufdd0', '\U0001ffffx', '\u0378']
VOCABULARY = train_wordpiece(TEXTS + [text.encode() for text in ODD] * 9, 3_000).vocabulary


def theirs(lower):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece({token: i for i, token in enumerate(VOCABULARY)},
                                                                 unk_token=UNKNOWN, max_input_chars_per_word=100))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return tokenizer


def differing(texts, lower=True):
    """The texts whose ids or byte offsets are not those of Hugging Face."""
    tokenize = tf.function(WordPieceTokenizer(VOCABULARY, lower).tokenize)
    ids, begins, ends = (ragged.to_list() for ragged in tokenize(tf.constant(texts)))
    found = []
    for text, expected, *ours in zip(texts, theirs(lower).encode_batch(texts), ids, begins, ends, strict=True):
        at = [0]                                     # the byte at which each character begins
        for character in text:
            at.append(at[-1] + len(character.encode()))
        offsets = [at[first] for first, _ in expected.offsets], [at[last] for _, last in expected.offsets]
        if ours != [expected.ids, *offsets]:
            found.append(text)
    return found


def slices(text):
    return [text[i:i + SLICE] for i in range(0, len(text), SLICE)]


@pytest.mark.parametrize('lower', [True, False])
def test_python_s_documentation_and_odd_texts(lower):
    texts = [part for text in topics.topics.values() for part in slices(text)]
    assert len(texts) > 2_000
    assert differing(texts + ODD, lower) == []


@pytest.mark.parametrize('language', ['de', 'tr', 'zh_CN'])
def test_message_catalogs(language):
    texts = []
    for file in sorted(pathlib.Path('/usr/share/locale', language, 'LC_MESSAGES').glob('*.mo')):
        with open(file, 'rb') as opened, contextlib.suppress(UnicodeDecodeError):      # old ones are not UTF-8
            messages = gettext.GNUTranslations(opened)._catalog.values()
            texts += [part for text in messages for part in slices(text)]
    if not texts:
        pytest.skip(f'no message catalogs of {language} in /usr/share/locale')
    assert differing(texts[:MESSAGES]) == []


def test_all_code_points():
    """But for those that two versions of Unicode see differently, and CJK signs outside of Hugging Face's ranges."""
    codes = [code for code in range(0x110000) if unicodedata.category(chr(code)) not in ('Cn', 'Cs')]
    words = [f'a{chr(code)}b' for code in codes]
    rows = differing([' '.join(words[i:i + 100]) for i in range(0, len(words), 100)])
    others = {ord(word[1]) for word in differing([f'a{one}b' for row in rows for one in row[1::4]])}
    left_out = set(range(0x2b820, 0x2b920))
    assert left_out <= others
    # Properties of characters that were assigned, or changed, after one of the two versions.
    assert len(others - left_out) < 0.004 * len(codes)
    assert not [code for code in others if code < 0x2e0]            # Latin


def test_ids_stand_between_the_ends_and_padding():
    tokenizer = WordPieceTokenizer([*SPECIAL, 'a', '##b', 'c'])
    pad, unknown, start, end, _ = range(5)
    encoded = tokenizer.encode(tf.constant(['ab c', 'A', 'd', '', 'c c c c c c']), 6).numpy().tolist()
    assert encoded == [[start, 5, 6, 7, end, pad], [start, 5, end, pad, pad, pad], [start, unknown, end, pad, pad, pad],
                       [start, end, pad, pad, pad, pad], [start, 7, 7, 7, 7, end]]
    assert tokenizer.pieces([5, 6]) == ['a', '##b']
    assert tokenizer.decode(tf.constant(encoded)).numpy().tolist() == [b'ab c', b'a', b'[UNK]', b'', b'c c c c']


def test_a_special_token_that_is_typed_is_text():
    tokenizer = WordPieceTokenizer([*SPECIAL, '[', ']', 'mask'])
    ids, _, _ = tokenizer.tokenize(tf.constant(['[MASK]']))
    assert ids.to_list() == [[5, 7, 6]]


def test_no_text_and_no_word():
    tokenize = WordPieceTokenizer(VOCABULARY).tokenize
    assert tokenize(tf.constant([], tf.string))[0].to_list() == [] and tokenize(tf.constant(['']))[0].to_list() == [[]]


def test_hostile_texts():
    tokenizer = WordPieceTokenizer(VOCABULARY)
    encoded = tokenizer.encode(tf.constant([b'\xff\xfe', b'x ' * 50_000, 'é'.encode() * 100_000]), 32)
    assert encoded.shape == (3, 32) and (encoded[:, 0] == tokenizer.special.start).numpy().all()
    assert (encoded[2, 1] == tokenizer.special.unknown) and encoded[1, -1] == tokenizer.special.end


def test_files_make_it_again():
    tokenizer = WordPieceTokenizer(VOCABULARY, lower=False)
    again = load_tokenizer(tokenizer.files)
    assert (again.vocabulary, again.lower) == (tokenizer.vocabulary, False)
    alone = load_tokenizer({'vocab.txt': '\r\n'.join(VOCABULARY).encode()})      # as BERT's own files, with no end
    assert (alone.vocabulary, alone.lower) == (tokenizer.vocabulary, True)


def test_the_same_texts_give_the_same_vocabulary_in_another_process():
    code = ('from pydoc_data.topics import topics; from data.tokenizers.wordpiece import train_wordpiece\n'
            'print(*train_wordpiece((text.encode() for text in topics.values()), 2_000).vocabulary, sep="\\n")')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert tuple(done.stdout.splitlines()) == train_wordpiece(TEXTS, 2_000).vocabulary


@pytest.mark.parametrize('make, parts', [
    (lambda: train_wordpiece(TEXTS, 50), ['`vocabulary_size` must be at least', 'vocabulary_size=50']),
    (lambda: WordPieceTokenizer(['a', 'b']), ['`tokenizer`', '[PAD], [UNK]', '2 lines']),
    (lambda: WordPieceTokenizer([*SPECIAL, 'a', 'a']), ['each token once', '7 lines, 6 tokens']),
    (lambda: load_tokenizer({'vocab.txt': b'a', 'tokenizer_config.json': b'{"strip_accents": false}'}),
     ['`tokenizer`', 'strip_accents=True', 'strip_accents=False']),
])
def test_errors_are_one_clear_line(make, parts):
    with pytest.raises(UserError) as error:
        make()
    assert '\n' not in str(error.value) and all(part in str(error.value) for part in parts)
