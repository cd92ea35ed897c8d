"""Tokenizers of words and characters: round trips, hostile input, and a SavedModel that needs none of our code."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from data.inputs.text import load_tokenizer
from data.sources.number_words import chinese, english
from data.tokenizers.special import PLAIN
from data.tokenizers.words import CharacterTokenizer, WordTokenizer, train_words
from draws import Draws
from errors import UserError
from tests.opened import opened

WORDS = WordTokenizer(['a', 'cat', '-', ',', 'naïve', '猫'])
CHARACTERS = CharacterTokenizer('零一二😀')
PADDING, START, END, UNKNOWN = PLAIN.pad, PLAIN.start, PLAIN.end, PLAIN.unknown


def test_ids():
    ids = WORDS.encode(tf.constant(['A cat, a-CAT', 'a dog', '']), 8)
    assert ids.numpy().tolist() == [[4, 5, 7, 4, 6, 5, END, 0], [4, UNKNOWN, END, 0, 0, 0, 0, 0], [END] + 7 * [PADDING]]
    assert (ids.dtype, ids.shape) == (tf.int32, (3, 8))


@pytest.mark.parametrize('tokenizer', [WORDS, CHARACTERS])
def test_encode_has_static_shapes_in_a_graph(tokenizer):
    encode = tf.function(lambda strings: tokenizer.encode(strings, 5))
    assert encode.get_concrete_function(tf.TensorSpec([4], tf.string)).output_shapes == (4, 5)
    assert encode.get_concrete_function(tf.TensorSpec([None], tf.string)).output_shapes.as_list() == [None, 5]


def test_decode_stops_at_the_first_end_and_shows_what_is_unknown():
    ids = tf.constant([[START, 4, 5, END, 4, 0], [4, UNKNOWN, 6, 5, 0, 5], [END, 4, 4, 4, 4, 4]])
    assert [text.decode() for text in WORDS.decode(ids).numpy()] == ['a cat', 'a �-cat cat', '']


def test_round_trip_of_number_words():
    _, task = opened('number_words', 'translation')
    numbers = np.random.RandomState(0).randint(1_000_000, size=2_000).tolist() + [0, 1, 10, 777_777, 999_999]
    for side, rule in ((task.source, english), (task.target, chinese)):
        texts = [rule(n) for n in numbers]
        back = side.tokenizer.decode(side(tf.constant(texts))).numpy()
        assert [text.decode() for text in back] == texts


@pytest.mark.parametrize('tokenizer', [WORDS, CHARACTERS])
@pytest.mark.parametrize('text', [b'', b' \t\n ', b'\x00', b'\xff\xfe\x80', b'ab\xc3', '👩‍👩‍👧😀 é'.encode(),
                                  b'a' * 10_000, b'a ' * 5_000, ' a　cat '.encode(), '�'.encode(), b'<end>'])
def test_any_bytes_are_encoded(tokenizer, text):
    ids = tokenizer.encode(tf.constant([text, b'a']), 6).numpy()
    assert ids.shape == (2, 6) and ids.min() >= 0 and ids.max() < tokenizer.vocabulary_size
    assert all(np.count_nonzero(row == END) == 1 for row in ids)     # text never makes a special token
    assert tokenizer.decode(ids).shape == (2,)


def test_long_text_is_cut_and_keeps_its_end():
    assert WORDS.encode(tf.constant(['a cat a cat a cat']), 4).numpy().tolist() == [[4, 5, 4, END]]


def test_unicode_spaces_and_case():
    assert WORDS.encode(tf.constant(['NAÏVE　猫\xa0a']), 5).numpy().tolist() == [[8, 9, 4, END, 0]]


def test_the_empty_batch():
    assert WORDS.encode(tf.constant([], tf.string), 4).shape == (0, 4)


def test_a_token_may_not_appear_twice():
    with pytest.raises(ValueError, match='`tokens` must all differ'):
        CharacterTokenizer('aba')


def test_batch_shifts_the_target():
    _, task = opened('number_words', 'translation')
    examples = {'source': tf.constant(['two thousand', 'ten']), 'target': tf.constant(['二千', '十'])}
    x, y, weights = task.batch(task.prepare(examples), Draws(0))
    assert x['source'].shape == (2, 14) and x['target'].shape == y.shape == weights.shape == (2, 12)
    assert task.decode(y).numpy()[0].decode() == '二千'
    two, thousand, ten = (task.target.tokenizer.encode(tf.constant([c]), 2)[0, 0] for c in '二千十')
    assert y[:, :4].numpy().tolist() == [[two, thousand, END, 0], [ten, END, 0, 0]]
    assert x['target'][:, :4].numpy().tolist() == [[START, two, thousand, 0], [START, ten, 0, 0]]
    assert weights[:, :4].numpy().tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]] and not weights[:, 4:].numpy().any()
    np.testing.assert_array_equal(x['source'], task.source(examples['source']))
    np.testing.assert_array_equal(x['source_mask'], x['source'] != PADDING)
    assert task.sizes == {'source_vocabulary_size': 36, 'target_vocabulary_size': 18}


@pytest.mark.parametrize('tokenizer', [WORDS, CHARACTERS])
def test_its_files_make_it_again(tokenizer):
    again = load_tokenizer(tokenizer.files)
    assert type(again) is type(tokenizer) and again.tokens == tokenizer.tokens


def test_the_most_frequent_words_are_learned():
    texts = [tf.constant(['b a, c', 'a b']), tf.constant(['A. d', b'\xff'])]
    assert train_words(texts, 7).tokens == ('a', 'b', ',')
    assert set(train_words(texts, 100).tokens) == {'a', 'b', ',', '.', 'c', 'd', '\ufffd'}
    with pytest.raises(UserError, match='`vocabulary_size` must be above 4, .* Received: vocabulary_size=4'):
        train_words(texts, 4)


LOAD = """
import sys, tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures['serving_default']
out = serve(text=tf.constant(['two thousand and twenty-six', 'Zero!', b'\\xff']))
print(out['ids'].numpy().tolist(), [text.decode() for text in out['back'].numpy()])
"""


@pytest.mark.slow
def test_a_saved_model_needs_none_of_our_code(tmp_path):
    module = tf.Module()
    text = opened('number_words', 'translation')[1].source
    module.tokenizer = text.tokenizer

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, 'text')])
    def serve(strings):
        ids = text(strings)
        return {'ids': ids, 'back': text.tokenizer.decode(ids)}

    tf.saved_model.save(module, str(tmp_path), signatures=serve)
    ran = subprocess.run([sys.executable, '-c', LOAD, str(tmp_path)], cwd=tmp_path, env={'TF_CPP_MIN_LOG_LEVEL': '3'},
                         capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    ids = text(tf.constant([b'two thousand and twenty-six', b'Zero!', b'\xff'])).numpy().tolist()
    assert ran.stdout.strip() == f"{ids} ['two thousand and twenty-six', 'zero �', '�']"
