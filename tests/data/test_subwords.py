"""Subwords: round trips, hostile input, and a model that outlives `set_random_seed` and needs none of our code."""

import itertools
import subprocess
import sys
import unicodedata

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.descriptor_pb2 import DescriptorProto

from data.inputs.text import TextInput, load_tokenizer
from data.pipeline import training_slices
from data.rows import Mapped
from data.sources.number_words import chinese, english
from data.tokenizers.special import PLAIN
from data.tokenizers.subwords import SubwordTokenizer, train_subwords
from data.tokenizers.wire import without
from errors import UserError
from tests.opened import pairs_dataset, task_of

SENTENCES = [rule(n) for n in range(0, 100_000, 97) for rule in (english, chinese)]
PADDING, START, END, UNKNOWN = PLAIN.pad, PLAIN.start, PLAIN.end, PLAIN.unknown
MODEL = train_subwords(SENTENCES, 400)
TOKENIZER = SubwordTokenizer(MODEL)
TEXTS = ['', 'ten', 'two thousand and twenty-six', '二千零二十六', 'Äpfel, größer: 5 % {1} (“x”)…', 'שלום, עולם! ‏א', 'مرحبا',
         '😀👩‍👩‍👧🏽', '<s></s><pad><unk><0x41>', 'a\x00b', '�', 'ｆｕｌｌ　'.strip(), '\U0010ffff', 'ﬁ²']


def decoded(ids, tokenizer=TOKENIZER):
    return [text.decode() for text in tokenizer.decode(ids).numpy()]


def test_the_same_strings_give_the_same_bytes():
    assert train_subwords(SENTENCES, 400) == MODEL and b'rules.tsv' not in MODEL


def test_a_field_is_left_out_as_by_protobuf():
    message = DescriptorProto(name='a', field=[{'name': 'b', 'number': 300}], options={'map_entry': True})
    message.options.uninterpreted_option.add(identifier_value=200 * 'c', double_value=1.5, positive_int_value=2**63)
    name, field, options, uninterpreted, double = 1, 2, 7, 999, 6
    left = without(message.SerializeToString(), options, uninterpreted, double)
    message.options.uninterpreted_option[0].ClearField('double_value')
    assert left == message.SerializeToString()
    left = without(without(left, name), field)
    message.ClearField('name')
    message.ClearField('field')
    assert left == message.SerializeToString() and without(left, options) == b''


def test_round_trip():
    assert decoded(TOKENIZER.encode(tf.constant(TEXTS), 100)) == TEXTS
    assert decoded(TOKENIZER.encode(tf.constant(SENTENCES), 60)) == SENTENCES


def test_round_trip_of_random_characters():
    codes = np.random.RandomState(0).randint(0x21, 0x30000, 4_000)
    texts = [chr(code) for code in codes if unicodedata.category(chr(code))[:2] not in ('Cc', 'Cs', 'Zs', 'Zl', 'Zp')
             and code != 0x2581]
    changed = [text for text, back in zip(texts, decoded(TOKENIZER.encode(tf.constant(texts), 9))) if text != back]
    assert all(unicodedata.normalize('NFC', text) != text for text in changed) and len(changed) < len(texts) / 50


@pytest.mark.parametrize('text, normal', [
    ('  a \t\n b\r\n', 'a b'), ('a\u3000\xa0\u2028b\x85', 'a b'), ('e\u0301', 'é'), (b'ab\xc3', 'ab�'), (b'\xff', '�')])
def test_what_is_normalised(text, normal):
    assert decoded(TOKENIZER.encode(tf.constant([text]), 40)) == [normal]


def test_special_ids_are_those_of_all_tokenisers():
    ids = TOKENIZER.encode(tf.constant(['ten', '']), 6)
    assert (ids.dtype, ids.shape) == (tf.int32, (2, 6)) and ids[1].numpy().tolist() == [END] + 5 * [PADDING]
    pieces = TOKENIZER.pieces(tf.constant([PADDING, START, END, UNKNOWN, 4, 259]))
    assert pieces == ['<pad>', '<s>', '</s>', '<unk>', '<0x00>', '<0xFF>']
    assert decoded([[START, *ids[0], 9, 9], [UNKNOWN, END, 0, 0, 0, 0, 0, 0, 0]]) == ['ten', '�']


@pytest.mark.parametrize('text', [b'', b' \t\n ', b'\x00', b'\xff\xfe\x80', b'ab\xc3', '👩‍👩‍👧😀 é'.encode(),
                                  b'a' * 10_000, b'a ' * 5_000, b'\xff' * 10_000, '�'.encode(), b'</s>', '▁'.encode()])
def test_any_bytes_are_encoded(text):
    ids = TOKENIZER.encode(tf.constant([text, b'a']), 6).numpy()
    assert ids.shape == (2, 6) and ids.min() >= 0 and ids.max() < TOKENIZER.vocabulary_size
    assert all(np.count_nonzero(row == END) == 1 and UNKNOWN not in row for row in ids)
    assert TOKENIZER.decode(ids).shape == (2,)


def test_any_ids_are_decoded():
    ids = np.random.RandomState(0).randint(TOKENIZER.vocabulary_size, size=(500, 20))
    assert all(isinstance(text, str) for text in decoded(ids))


def test_long_text_is_cut_and_keeps_its_end():
    whole = TOKENIZER.encode(tf.constant(['ten thousand ' * 800]), 20_000)[0]
    cut = TOKENIZER.encode(tf.constant(['ten thousand ' * 800]), 8)[0]
    assert cut.numpy().tolist() == [*whole[:7], END]


def test_encode_has_static_shapes_in_a_graph():
    encode = tf.function(lambda strings: TOKENIZER.encode(strings, 5))
    assert encode.get_concrete_function(tf.TensorSpec([4], tf.string)).output_shapes == (4, 5)
    assert encode.get_concrete_function(tf.TensorSpec([None], tf.string)).output_shapes.as_list() == [None, 5]


def test_the_empty_batch():
    assert TOKENIZER.encode(tf.constant([], tf.string), 4).shape == (0, 4)


@pytest.mark.parametrize('forget', [keras.utils.set_random_seed, tf.random.set_seed,
                                    lambda _: keras.utils.clear_session()])
def test_it_outlives_a_new_seed(forget):
    """tensorflow-text's own tokeniser does not: its resource goes with the cache of eager ops."""
    texts, tokenizer = tf.constant(SENTENCES[:8]), SubwordTokenizer(MODEL)
    expected = tokenizer.encode(texts, 20).numpy()
    graph = tf.function(lambda texts: tokenizer.encode(texts, 20))
    dataset = pairs_dataset(SENTENCES[:8], SENTENCES[:8])
    task = task_of('translation', dataset, tokenizer.files, max_length=20)
    rows = Mapped(dataset.train, task.prepare, ['source', 'target'])
    batches = iter(training_slices(rows, task.batch, batch_size=8, seed=0)())
    graph(texts), next(batches)
    forget(1)
    for ids in (tokenizer.encode(texts, 20), graph(texts), SubwordTokenizer(MODEL).encode(texts, 20)):
        np.testing.assert_array_equal(ids, expected)
    assert decoded(expected, tokenizer) == SENTENCES[:8]
    for _, y, _ in itertools.islice(batches, 20):
        assert sorted(map(tuple, y.numpy())) == sorted(map(tuple, expected))


def test_training_is_deterministic():
    assert train_subwords(iter(SENTENCES), 400) == MODEL != train_subwords(SENTENCES, 399)
    assert b'rules' not in MODEL


def test_a_rare_character_is_spelt_in_bytes():
    tokenizer = SubwordTokenizer(train_subwords(SENTENCES * 4 + ['Ω'], 400))
    ids = tokenizer.encode(tf.constant(['Ω']), 5).numpy()
    assert all(piece.startswith('<0x') for piece in tokenizer.pieces(ids[0, 1:3])) and decoded(ids, tokenizer) == ['Ω']


def test_both_sides_share_one_vocabulary():
    dataset = pairs_dataset(SENTENCES[::2], SENTENCES[1::2])
    task = task_of('translation', dataset, vocabulary_size=400)
    assert (task.source.length, task.target.length) == (64, 64)
    assert task.sizes == {'source_vocabulary_size': 400, 'target_vocabulary_size': 400}
    assert task_of('translation', dataset, task.tokenizer_files, max_length=12).tokenizer_files == task.tokenizer_files


def test_its_files_make_it_again():
    assert load_tokenizer(TOKENIZER.files).files == TOKENIZER.files == {'subwords.model': MODEL}


def test_messages(monkeypatch):
    with pytest.raises(UserError, match=r'`vocabulary_size` must be at most \d+ for this text. Received: .*=100000'):
        train_subwords(SENTENCES, 100_000)
    with pytest.raises(UserError, match=r'`vocabulary_size` must be at least \d+ for this text. Received: .*=100'):
        train_subwords(SENTENCES, 100)
    for sentences, size in (([], 400), (SENTENCES, -1)):
        with pytest.raises(UserError, match=f'`vocabulary_size` .*Received: vocabulary_size={size}'):
            train_subwords(sentences, size)
    for length in (1, -3):
        with pytest.raises(UserError, match=f'`max_length` must be at least 2.* Received: max_length={length}'):
            TextInput(TOKENIZER, length)
    for junk in (b'junk', MODEL[:1000]):
        with pytest.raises(UserError, match='`tokenizer` must be a SentencePiece model. Received: .* bytes'):
            SubwordTokenizer(junk)
    for package in ('sentencepiece', 'tensorflow_text'):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(UserError, match=rf'needs the package {package}, .*: pip install -e "\.\[text\]"'):
            train_subwords(SENTENCES, 400) and SubwordTokenizer(MODEL)
        monkeypatch.undo()


LOAD = """
import sys, tensorflow as tf, tensorflow_text
serve = tf.saved_model.load(sys.argv[1]).signatures['serving_default']
tf.random.set_seed(1)
for _ in range(2):
    out = serve(text=tf.constant([b'two thousand and twenty-six', '\\U0001f600'.encode(), b'\\xff', b'']))
print(out['ids'].numpy().tolist(), [text.decode() for text in out['back'].numpy()])
"""


@pytest.mark.slow
def test_a_saved_model_needs_none_of_our_code(tmp_path):
    module = tf.Module()
    module.tokenizer = TOKENIZER

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, 'text')])
    def serve(text):
        ids = TOKENIZER.encode(text, 20)
        return {'ids': ids, 'back': TOKENIZER.decode(ids)}

    tf.saved_model.save(module, str(tmp_path), signatures=serve)
    ran = subprocess.run([sys.executable, '-c', LOAD, str(tmp_path)], cwd=tmp_path, env={'TF_CPP_MIN_LOG_LEVEL': '3'},
                         capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    ids = TOKENIZER.encode(tf.constant([b'two thousand and twenty-six', '😀'.encode(), b'\xff', b'']), 20)
    assert ran.stdout.strip() == f"{ids.numpy().tolist()} ['two thousand and twenty-six', '😀', '�', '']"
    assert 'normalizer' not in ran.stderr
