"""number_words: English number words -> Chinese numerals, 0 to 999,999 ('two thousand and twenty-six' -> '二千零二十六').

Splits: 980,000 train, 10,000 validation, 10,000 test, disjoint and fixed: a held-out number is never seen.

English is British: 'and' before the last two digits of a group of three, or of the number, when they are not zero and
something goes before ('one thousand and five', 'two hundred and six thousand'); a hyphen in 21 to 99.
Chinese groups by ten thousand (万): each digit is followed by its unit; a run of zeros inside the number is read once,
as 零, but zeros at a group's end are not read (十万一千); ten to nineteen drop the first 一 only at the very front
(十二, 十二万, but 一百一十二); two is always 二.
"""

import numpy as np
import tensorflow as tf

from data.dataset import Dataset, Text
from data.source import Subset, hash_arrays, split_indices
from data.tokenizers.words import CharacterTokenizer, WordTokenizer

NUMBERS, VALIDATION, TEST = 1_000_000, 10_000, 10_000
SMALL = ('zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen '
         'seventeen eighteen nineteen').split()
TENS = 'twenty thirty forty fifty sixty seventy eighty ninety'.split()
DIGITS, UNITS = '零一二三四五六七八九', ('', '十', '百', '千')
# The longest sides and the end token: 'seven hundred and seventy-seven thousand seven hundred and seventy-seven' is 13
# tokens, 七十七万七千七百七十七 is 11.
SOURCE_LENGTH, TARGET_LENGTH = 14, 12


def english(n):
    if n < 20:
        return SMALL[n]
    if n < 100:
        return TENS[n // 10 - 2] + (f'-{SMALL[n % 10]}' if n % 10 else '')
    unit, name = (1000, 'thousand') if n >= 1000 else (100, 'hundred')
    words, rest = f'{english(n // unit)} {name}', n % unit
    if not rest:
        return words
    return f'{words} and {english(rest)}' if rest < 100 else f'{words} {english(rest)}'


def chinese(n):
    if n == 0:
        return '零'
    upper, lower = divmod(n, 10_000)
    words = f'{_group(upper)}万' if upper else ''
    if upper and 0 < lower < 1000:
        words += '零'
    words += _group(lower)
    return words.removeprefix('一') if words.startswith('一十') else words


def _group(n):
    """0 to 9,999 without shortening: 12 is 一十二, and 0 is nothing."""
    words, gap = '', False
    for power in (3, 2, 1, 0):
        digit = n // 10 ** power % 10
        if digit:
            words += ('零' if gap and words else '') + DIGITS[digit] + UNITS[power]
        gap = digit == 0
    return words


class NumberWords:
    """All pairs, by number: each side is two look-ups in a table of strings and a join."""

    num_examples, in_memory, decodes_files = NUMBERS, False, False

    def __init__(self):
        self._english = Halves(english, 1000)
        self._chinese = Halves(chinese, 10_000)
        self.fingerprint = hash_arrays({**self._english.arrays('english'), **self._chinese.arrays('chinese')})

    def gather(self, indices, fields=None):
        sides = {'source': self._english, 'target': self._chinese}
        return {name: sides[name](indices) for name in fields or sides}      # each string [B]


class Halves:
    """A rule that reads n as the words of n // unit and those of n % unit; the lower words depend on whether there
    is an upper half."""

    def __init__(self, rule, unit):
        one = rule(unit)
        self._unit = unit
        self._upper = [''] + [rule(n * unit) for n in range(1, NUMBERS // unit)]
        # First the lower halves that stand alone, then those that follow an upper half.
        self._lower = [rule(n) for n in range(unit)] + [rule(unit + n).removeprefix(one) for n in range(unit)]

    def arrays(self, name):
        return {f'{name}_upper': np.array(self._upper, object), f'{name}_lower': np.array(self._lower, object)}

    def __call__(self, numbers):
        upper, lower = numbers // self._unit, numbers % self._unit
        lower += tf.where(upper > 0, tf.constant(self._unit, tf.int64), 0)
        return tf.strings.join([tf.gather(tf.constant(self._upper), upper), tf.gather(tf.constant(self._lower), lower)])


def open_number_words(data_dir=None):
    everything = NumberWords()
    splits = (Subset(everything, part) for part in split_indices(NUMBERS, VALIDATION, TEST))
    source = WordTokenizer(SMALL + TENS + ['hundred', 'thousand', 'and', '-'])
    target = CharacterTokenizer(DIGITS + ''.join(UNITS) + '万')
    return Dataset('number_words', *splits, fields={'source': Text('en', source, SOURCE_LENGTH),
                                                    'target': Text('zh', target, TARGET_LENGTH)})
