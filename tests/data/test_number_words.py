"""The rule of number_words against parsers written the other way round, and against another project's words."""

import numpy as np
import pytest
import tensorflow as tf

from data import open_dataset
from data.pipeline import evaluation_slices
from data.sources.number_words import NUMBERS, SOURCE_LENGTH, TARGET_LENGTH, NumberWords, chinese, english
from errors import UserError
from tests.opened import opened

CHINESE_DIGITS = {character: value for value, character in enumerate('零一二三四五六七八九')}
CHINESE_UNITS = {'十': 10, '百': 100, '千': 1000}
ENGLISH = {word: value for value, word in enumerate(
    'zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen '
    'eighteen nineteen'.split())}
ENGLISH |= {word: 10 * value for value, word in enumerate(
    'twenty thirty forty fifty sixty seventy eighty ninety'.split(), 2)}
BASES = (0, 10, 20, 100, 110, 200, 1000, 1010, 1100, 2000, 10_000, 10_010, 10_100, 11_000, 20_000, 100_000, 100_010,
         101_000, 110_000, 111_111, 200_000, 999_990)
BOUNDARIES = [base + offset for base in BASES for offset in range(10)]


def parse_chinese(words):
    total = digit = 0
    for character in words:
        if character == '万':
            total, digit = (total + digit) * 10_000, 0
        elif character in CHINESE_UNITS:
            total, digit = total + (digit or 1) * CHINESE_UNITS[character], 0
        else:
            digit = CHINESE_DIGITS[character]
    return total + digit


def parse_english(words):
    total = group = 0
    for word in words.replace('-', ' ').split():
        if word == 'thousand':
            total, group = group * 1000, 0
        elif word == 'hundred':
            group *= 100
        elif word != 'and':
            group += ENGLISH[word]
    return total + group


@pytest.fixture(scope='module')
def all_words():
    pairs = tf.function(NumberWords().gather)(tf.range(NUMBERS, dtype=tf.int64))
    return {side: [text.decode() for text in pairs[side].numpy()] for side in ('source', 'target')}


@pytest.mark.parametrize('number, words, numerals', [
    (0, 'zero', '零'), (10, 'ten', '十'), (12, 'twelve', '十二'), (21, 'twenty-one', '二十一'),
    (101, 'one hundred and one', '一百零一'), (112, 'one hundred and twelve', '一百一十二'),
    (200, 'two hundred', '二百'), (1005, 'one thousand and five', '一千零五'),
    (1050, 'one thousand and fifty', '一千零五十'), (2026, 'two thousand and twenty-six', '二千零二十六'),
    (10_001, 'ten thousand and one', '一万零一'), (12_000, 'twelve thousand', '一万二千'),
    (100_012, 'one hundred thousand and twelve', '十万零一十二'), (101_000, 'one hundred and one thousand', '十万一千'),
    (120_300, 'one hundred and twenty thousand three hundred', '十二万零三百'),
    (206_050, 'two hundred and six thousand and fifty', '二十万六千零五十'),
    (999_999, 'nine hundred and ninety-nine thousand nine hundred and ninety-nine', '九十九万九千九百九十九')])
def test_known_numbers(number, words, numerals):
    assert (english(number), chinese(number)) == (words, numerals)


def test_graph_gives_the_plain_functions_words(all_words):
    numbers = BOUNDARIES + np.random.RandomState(0).randint(NUMBERS, size=50_000).tolist()
    assert [all_words['source'][n] for n in numbers] == [english(n) for n in numbers]
    assert [all_words['target'][n] for n in numbers] == [chinese(n) for n in numbers]


def test_every_number_can_be_read_back(all_words):
    assert [parse_chinese(words) for words in all_words['target']] == list(range(NUMBERS))
    assert [parse_english(words) for words in all_words['source']] == list(range(NUMBERS))


def test_numerals_are_well_formed(all_words):
    everything = '\n'.join(all_words['target'])
    for wrong in ('零零', '零\n', '两', '零万', '零千', '零百', '零十', '\n一十'):
        assert wrong not in everything.removeprefix('零\n'), wrong


def test_english_is_that_of_num2words():
    num2words = pytest.importorskip('num2words').num2words
    numbers = BOUNDARIES + np.random.RandomState(1).randint(NUMBERS, size=3_000).tolist()
    assert [english(n) for n in numbers] == [num2words(n).replace(',', '') for n in numbers]


def test_splits_are_disjoint_and_complete():
    dataset = open_dataset('number_words')
    texts = [split.gather(tf.range(split.num_examples, dtype=tf.int64))['target'].numpy()
             for split in (dataset.train, dataset.validation, dataset.test)]
    assert [len(part) for part in texts] == [980_000, 10_000, 10_000]
    assert len(set(np.concatenate(texts).tolist())) == NUMBERS
    assert dataset.fingerprint == open_dataset('number_words').fingerprint


def test_lengths_and_vocabularies_are_as_short_as_the_data_allows(all_words):
    _, task = opened('number_words', 'translation')
    assert (task.source.length, task.target.length) == (SOURCE_LENGTH, TARGET_LENGTH)
    for tokenizer, words, length in ((task.source.tokenizer, all_words['source'], SOURCE_LENGTH),
                                     (task.target.tokenizer, all_words['target'], TARGET_LENGTH)):
        tokens = tokenizer.split(tf.constant(words[777_000:778_000] + words[:20_000]))
        assert int(tf.reduce_max(tokens.row_lengths())) + 1 == length
        assert set(tf.unique(tokens.flat_values)[0].numpy().tolist()) == {token.encode() for token in tokenizer.tokens}


def test_an_evaluation_counts_every_token_once():
    dataset, task = opened('number_words', 'translation')
    batches = evaluation_slices(task.rows(dataset.validation), task.batch, batch_size=768)()
    total = sum(float(tf.reduce_sum(weights)) for _, _, weights, _ in batches)
    targets = dataset.validation.gather(tf.range(10_000, dtype=tf.int64))['target']
    assert total == int(tf.reduce_sum(tf.strings.length(targets, unit='UTF8_CHAR') + 1))


def test_a_setting_that_the_data_set_decides_is_refused():
    assert opened('number_words', 'translation', max_length=9)[1].source.length == 9
    for name, value in (('vocabulary_size', 99), ('tokenizer', 'words')):
        with pytest.raises(UserError, match=f'`{name}` is for datasets without a tokenizer of their own; number_words'):
            opened('number_words', 'translation', **{name: value})
