"""Messages of programs as sentences: what people read in them, without what only the program needs.

A message has codes that the program fills in (`%s`, `%2$d`, `{name}`, `$HOME`), marks of keyboard shortcuts (`_File`,
`&File`), markup and line breaks. Both sides of a pair are cleaned together, since each shows what is a mark in the
other; what cannot be cleaned surely, or is not a translation, is dropped.
"""

import html
import re
import unicodedata
from collections import Counter

LONGEST = 256                   # characters of a side
RATIO, SLACK = 3, 20            # the longer side has at most RATIO times the shorter one's characters, and SLACK more
NO_SENTENCES = {'translator-credits', 'translator_credits', 'translators-credits'}      # a list of names

CODE = re.compile(r'''
    (?P<percent>%%)
  | % (?:(?P<position>\d+)\$)? (?:\((?P<python>\w+)\))? [-+\#0']* (?:\d+|\*(?:\d+\$)?)? (?:\.(?:\d+|\*(?:\d+\$)?)?)?
      (?: <(?P<macro>PRI\w+)> | (?:hh|ll|[hljztLq])? (?P<printf>[diouxXeEfFgGaAcspm]) )
  | % L? (?P<qt>\d{1,2})
  | \$ (?: \{ (?P<shell>[A-Za-z_]\w*) \} | (?P<variable>[A-Za-z_]\w*) )
  | \{ (?P<brace>\w*) (?:[.!:\[][^{}]*)? \}
''', re.VERBOSE)
TAG = re.compile(r'</?(a|b|big|br|code|em|i|kbd|li|ol|p|s|small|span|strong|sub|sup|tt|u|ul)(?:\s[^<>]*)?/?>', re.I)
ENTITY = re.compile(r'&(?:[a-zA-Z]+|#\d+|#x[\da-fA-F]+);')
# In English a shortcut's mark stands before a word, or inside a capitalised one; elsewhere it belongs to a name.
SHORTCUTS = {mark: (re.compile(rf'(?<![\w{mark}]){mark}(?=[^\W_])(?!\w+;)|(?<=\b[A-Z])[a-z]*{mark}(?=[a-z])'),
                    re.compile(rf'\s*\({mark}\w\)|{mark}(?=[^\W_])')) for mark in '_&'}
SPACE = re.compile(r'[\s\x00-\x1f\x7f-\x9f]+')
LETTERS = re.compile(r'[^\W\d_]')


def message_pairs(singular, plural, forms, form_of):
    """The (English, translation) pairs of one message: one, or that of its singular and that of its plural.

    Args:
        plural: English plural, '' for a message that has none.
        forms: {number of the form: translation}; a message without plural has form 0 alone.
        form_of: count -> number of the form, as the catalog's header gives it.
    """
    if not plural:
        return [(singular, forms.get(0, ''))]
    one, many = form_of(1), form_of(100)
    pairs = [(singular, forms.get(one, ''))] if one != many else []    # Japanese has one form, which is the plural's
    return [*pairs, (plural, forms.get(many, ''))]


def clean_pair(english, translation):
    """Returns the cleaned (English, translation), or None if it is to be dropped.

    Both in Unicode's NFC, on one line, with {1}, {2}, ... for the codes, numbered as they come in the English side.
    Dropped: a side without a letter; equal sides, which are names or not translated; codes or markup that differ;
    a side of more than LONGEST characters; lengths that differ by more than RATIO and SLACK.
    """
    if not translation or english in NO_SENTENCES:
        return None
    pair = _without_shortcuts(*(unicodedata.normalize('NFC', text) for text in (english, translation)))
    if Counter(TAG.findall(pair[0].lower())) != Counter(TAG.findall(pair[1].lower())):
        return None
    pair = _numbered_codes(*(ENTITY.sub(lambda found: html.unescape(found[0]), TAG.sub(' ', text)) for text in pair))
    if pair is None:
        return None
    english, translation = (unicodedata.normalize('NFC', SPACE.sub(' ', text).strip()) for text in pair)
    return (english, translation) if _is_translation(english, translation) else None


def _without_shortcuts(english, translation):
    """`_File`, `E&xit` and `ファイル(_F)` without their marks, if the English side has one mark and no name with one."""
    for mark, (in_english, anywhere) in SHORTCUTS.items():
        if english.count(mark) == 1 and translation.count(mark) <= 1 and in_english.search(english):
            marked = next(word for word in english.split() if mark in word)
            if len(marked) == 2 or marked not in translation.split():
                english, translation = english.replace(mark, ''), anywhere.sub('', translation)
    return english, translation


def _numbered_codes(english, translation):
    """Both sides with {1}, {2}, ... for their codes, or None if the codes differ."""
    ours, theirs = _codes(english), _codes(translation)
    if Counter(ours) != Counter(theirs):
        return None
    numbers = {code: number for number, code in enumerate(dict.fromkeys(ours), 1)}

    def fill(text, codes):
        codes = iter(codes)
        return CODE.sub(lambda found: '%' if found['percent'] else f'{{{numbers[next(codes)]}}}', text)
    return fill(english, ours), fill(translation, theirs)


def _codes(text):
    """(which argument, its type) of each code, in order. A code that names no argument takes the next one."""
    codes = []
    for found in CODE.finditer(text):
        if not found['percent']:
            name = next(filter(None, (found[group] for group in ('position', 'python', 'qt', 'shell', 'variable',
                                                                 'brace'))), str(len(codes) + 1))
            codes.append((name, found['macro'] or (found['printf'] or '').replace('i', 'd')))
    return codes


def _is_translation(english, translation):
    shorter, longer = sorted((len(english), len(translation)))
    return (english.casefold() != translation.casefold() and longer <= min(LONGEST, RATIO * shorter + SLACK)
            and all(LETTERS.search(CODE.sub('', text)) for text in (english, translation)))
