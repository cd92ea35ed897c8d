"""Messages cleaned as pairs: shortcuts, codes, markup, plurals, and texts that are not translations."""

import unicodedata

import pytest

from data.sources.messages import CODE, LONGEST, clean_pair, message_pairs


@pytest.mark.parametrize('english, translation, cleaned', [
    # Shortcuts: in both languages, in one, at the end in brackets, inside a word.
    ('_File', '_Datei', ('File', 'Datei')), ('_Open Link', 'Link ö_ffnen', ('Open Link', 'Link öffnen')),
    ('E_xit', '_Beenden', ('Exit', 'Beenden')), ('&Undo', '&Rückgängig', ('Undo', 'Rückgängig')),
    ('_Save as', 'Speichern unter', ('Save as', 'Speichern unter')),
    ('_File', 'ファイル(_F)', ('File', 'ファイル')), ('&Edit', '编辑 (&E)', ('Edit', '编辑')),
    # Not shortcuts: names, entities, a redirection.
    ('invalid pg_lsn', 'ungültige pg_lsn', ('invalid pg_lsn', 'ungültige pg_lsn')),
    ('set _FORTIFY to on', 'setze _FORTIFY auf an', ('set _FORTIFY to on', 'setze _FORTIFY auf an')),
    ('cat &amp; mouse', 'Katze &amp; Maus', ('cat & mouse', 'Katze & Maus')),
    ('write it with 2>&1', 'schreib es mit 2>&1', ('write it with 2>&1', 'schreib es mit 2>&1')),
    # Codes are numbered as the English side has them.
    ('%s: %d files', '%s: %d Dateien', ('{1}: {2} files', '{1}: {2} Dateien')),
    ('%s in %s', '%2$s hat %1$s', ('{1} in {2}', '{2} hat {1}')),
    ('%2$s and %1$lu', '%1$lu und %2$s', ('{1} and {2}', '{2} und {1}')),
    ('%(name)s is %-10.3f', '%(name)s hat %-10.3f', ('{1} is {2}', '{1} hat {2}')),
    ('{name} of {0:d}', '{0:d}: davon {name}', ('{1} of {2}', '{2}: davon {1}')),
    ('read %<PRIuMAX> bytes: %m', 'las %<PRIuMAX> Oktette: %m', ('read {1} bytes: {2}', 'las {1} Oktette: {2}')),
    ('$HOME and ${PATH} not set', '$HOME und ${PATH} fehlen', ('{1} and {2} not set', '{1} und {2} fehlen')),
    ('%1 of %2 pages', 'Seite %1 von %2', ('{1} of {2} pages', 'Seite {1} von {2}')),
    ('%i%% done', '%d%% fertig', ('{1}% done', '{1}% fertig')),
    ('100 % sure', '100 % sicher', ('100 % sure', '100 % sicher')),
    # Markup, entities, white space, Unicode.
    ('<b>Note</b>: a <file>', '<b>Hinweis</b>: eine <Datei>', ('Note : a <file>', 'Hinweis : eine <Datei>')),
    ('a &lt;b&gt;', 'ein &lt;b&gt;', ('a <b>', 'ein <b>')),
    (' two\n\tlines\u2028more ', ' zwei\n Zeilen\xa0mehr\n', ('two lines more', 'zwei Zeilen mehr')),
    ('cafe\u0301', 'Kneipe', ('caf\xe9', 'Kneipe'))])
def test_cleaned(english, translation, cleaned):
    assert clean_pair(english, translation) == cleaned


@pytest.mark.parametrize('english, translation', [
    ('File', ''), ('', 'Datei'), ('File', ' \n'), ('Linux', 'Linux'), ('_Video', 'Vi_deo'), ('video', 'Video'),
    ('%s: %d', '%s – %d'), ('%s file', 'eine Datei'), ('a file', '%s Dateien'), ('%s to %d', '%d nach %s'),
    ('{a} of us', '{b} von uns'), ('<b>Note</b>', 'Hinweis'), ('translator-credits', 'Erika Mustermann'),
    ('file', '12 : 34'), ('word ' * LONGEST, 'Wort ' * LONGEST), ('word', 'Wort ' * 20), ('word ' * 20, 'Wort')])
def test_dropped(english, translation):
    assert clean_pair(english, translation) is None


def test_what_is_clean_stays_as_it_is():
    for pair in (('The file {1} has {2} lines.', '{2} Zeilen hat die Datei {1}.'), ('“Yes” – 5 %', '„Ja“ – 5 %'),
                 ('File not found', 'לא נמצא קובץ'), ('File', '文件')):
        assert clean_pair(*pair) == pair
        assert all(unicodedata.is_normalized('NFC', text) for text in pair)


def test_a_code_is_one_whatever_its_flags():
    for code in '%s %-20s %.*s %*d %*.*f %\'d %05.2lf %zu %lld %hhx %3$-8s %(a)05d %% %m {} {a.b} {0:>8}'.split():
        assert CODE.fullmatch(code), code
    for text in ('% s', '5 % der', '%', '{', '{a b}', '$', '$5'):
        assert not CODE.search(text), text


def german(n):
    return int(n != 1)


def russian(n):
    return 0 if n % 10 == 1 and n % 100 != 11 else 1 if 2 <= n % 10 <= 4 and not 12 <= n % 100 <= 14 else 2


def japanese(_):
    return 0


@pytest.mark.parametrize('form_of, forms, one, many', [
    (german, ['Datei', 'Dateien'], 'Datei', 'Dateien'), (russian, ['файл', 'файла', 'файлов'], 'файл', 'файлов'),
    (japanese, ['ファイル'], None, 'ファイル'), (german, [], '', '')])
def test_plurals(form_of, forms, one, many):
    expected = [('file', one)] * (one is not None) + [('files', many)]
    assert message_pairs('file', 'files', dict(enumerate(forms)), form_of) == expected


def test_a_message_without_plural():
    assert message_pairs('file', '', {0: 'Datei'}, german) == [('file', 'Datei')]
