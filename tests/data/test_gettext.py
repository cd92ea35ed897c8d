"""gettext/LANG: real catalogs, made here by polib or those of the machine, and the text files written from them."""

import itertools
import shutil
import sys

import polib
import pytest
import tensorflow as tf

from data import open_dataset
from data.gettext import main, write_corpus
from data.source import split_of
from data.sources.catalogs import HELD_OUT, find_catalogs, read_corpus
from errors import UserError
from tests.opened import opened

VERBS = {'open': 'öffnen', 'close': 'schließen', 'read': 'lesen', 'write': 'schreiben', 'delete': 'löschen'}
NOUNS = {'file': 'Datei', 'disk': 'Platte', 'page': 'Seite', 'line': 'Zeile', 'network': 'Netz', 'folder': 'Ordner'}
STATES = {'now': 'jetzt', 'later': 'später', 'twice': 'zweimal', 'never': 'nie'}
MESSAGES = {f'Cannot {v} the {n} %s {s}': f'{NOUNS[n]} %s {STATES[s]} {VERBS[v]}: geht nicht'
            for v, n, s in itertools.product(VERBS, NOUNS, STATES)}
SMALL = {'vocabulary_size': 340, 'max_length': 32}


def write_catalog(path, messages, entries=(), plural_forms='nplurals=2; plural=n != 1;'):
    path.parent.mkdir(parents=True, exist_ok=True)
    catalog = polib.MOFile()
    catalog.metadata = {'Content-Type': 'text/plain; charset=UTF-8', 'Plural-Forms': plural_forms}
    catalog.extend([polib.POEntry(msgid=english, msgstr=text) for english, text in messages.items()] + list(entries))
    catalog.save(str(path))
    return path


@pytest.fixture
def machine(tmp_path):
    """A data_dir with two catalogs of German."""
    folder, messages = tmp_path / 'machine' / 'locale' / 'de' / 'LC_MESSAGES', list(MESSAGES.items())
    write_catalog(folder / 'a.mo', dict(messages[:80]))
    write_catalog(folder / 'b.mo', dict(messages[60:]))
    return folder.parent.parent.parent


def folder_of(machine, language='de'):
    return machine / 'locale' / language / 'LC_MESSAGES'


def everything(splits):
    return dict(pair for pairs in splits.values() for pair in pairs)


def test_the_pairs_are_the_messages(machine):
    splits, catalogs = read_corpus('de', machine)
    assert everything(splits) == {english.replace('%s', '{1}'): text.replace('%s', '{1}')
                                  for english, text in MESSAGES.items()}
    assert [(catalog.path.name, len(catalog.pairs)) for catalog in catalogs] == [('a.mo', 80), ('b.mo', 60)]


def test_open_dataset(machine):
    dataset, task = opened('gettext/de', 'translation', data_dir=str(machine), **SMALL)
    assert sum(dataset.split(split).num_examples for split in ('train', 'validation', 'test')) == len(MESSAGES)
    assert str(dataset).endswith(f'test, from 2 catalogs, {dataset.fingerprint}')
    source = dataset.test.gather(tf.range(1, dtype=tf.int64))['source'].numpy()[0].decode()
    assert split_of(source, HELD_OUT) == 'test' and task.sizes['source_vocabulary_size'] == 340
    assert task.language == 'de'


def test_a_sentence_is_in_one_split_whatever_its_case_and_punctuation(machine):
    write_catalog(folder_of(machine) / 'loud.mo', {english.upper().replace('%S', '%d') + '!': text.replace('%s', '%d')
                                                   for english, text in MESSAGES.items()})
    splits, _ = read_corpus('de', machine)
    assert len(everything(splits)) == 2 * len(MESSAGES)
    assert_disjoint(splits)


def assert_disjoint(splits):
    english = [{sentence.casefold().strip('!') for sentence, _ in pairs} for pairs in splits.values()]
    assert all(english) and sum(map(len, english)) == len(set.union(*english))


def test_another_catalog_moves_no_sentence(machine):
    before, _ = read_corpus('de', machine)
    write_catalog(folder_of(machine) / '0.mo', {f'Another {english}': f'Noch: {text}'
                                                for english, text in MESSAGES.items()})
    after, _ = read_corpus('de', machine)
    assert all(set(before[split]) < set(after[split]) for split in ('train', 'validation', 'test'))


def test_names_and_copies_of_catalogs_do_not_matter(machine):
    before = read_corpus('de', machine)[0]
    (folder_of(machine) / 'b.mo').rename(folder_of(machine) / '0.mo')
    shutil.copy(folder_of(machine) / 'a.mo', folder_of(machine) / 'z.mo')
    after, catalogs = read_corpus('de', machine)
    assert after == before and [catalog.path.name for catalog in catalogs] == ['0.mo', 'a.mo']


def test_most_catalogs_decide_on_a_translation(machine):
    english = 'Cannot open the file {1} now'
    for name, text in (('x', 'B %s'), ('y', 'A %s'), ('z', 'B %s')):
        messages = {english.replace('{1}', '%s'): f'Viel {text}', name: 'Fehler'}
        write_catalog(folder_of(machine) / f'{name}.mo', messages)
    assert everything(read_corpus('de', machine)[0])[english] == 'Viel B {1}'


def test_plurals_contexts_and_what_is_not_translated(machine):
    fish = {0: 'ein Fang %d', 1: '%d Fänge'}
    entries = [polib.POEntry(msgid='%d fish', msgid_plural='%d fishes', msgstr_plural=fish),
               polib.POEntry(msgid='Save', msgctxt='verb', msgstr='Sichern')]
    write_catalog(folder_of(machine) / 'c.mo', {'Linux': 'Linux', 'translator-credits': 'Erika'}, entries)
    pairs = everything(read_corpus('de', machine)[0])
    assert pairs['{1} fish'] == 'ein Fang {1}' and pairs['{1} fishes'] == '{1} Fänge' and pairs['Save'] == 'Sichern'
    assert not {'', 'Linux', 'translator-credits'} & set(pairs)


def test_a_broken_catalog_is_passed_over(machine):
    before, folder = read_corpus('de', machine), folder_of(machine)
    (folder / 'empty.mo').write_bytes(b'')
    (folder / 'text.mo').write_bytes(b'not a catalog, but long enough to be read as one')
    (folder / 'cut.mo').write_bytes((folder / 'a.mo').read_bytes()[:500])
    (folder / 'gone.mo').symlink_to(folder / 'nowhere')
    write_catalog(folder / 'formula.mo', {'Yes': 'Ja'}, plural_forms='nplurals=2; plural=import os;')
    assert read_corpus('de', machine) == before


def test_messages(machine, monkeypatch):
    write_catalog(folder_of(machine, 'fr') / 'a.mo', {'Yes': 'Oui'})
    with pytest.raises(UserError, match='name a language of the catalogs in .*: de, fr. Received: dataset=gettext/xx'):
        open_dataset('gettext/xx', data_dir=str(machine))
    with pytest.raises(UserError, match='dataset=gettext/$'):
        open_dataset('gettext/', data_dir=str(machine))
    with pytest.raises(UserError, match='gettext/fr: its 1 catalogs give too few sentences: .*0'):
        open_dataset('gettext/fr', data_dir=str(machine))
    monkeypatch.setitem(sys.modules, 'polib', None)
    with pytest.raises(UserError, match=r'needs the package polib, .*: pip install -e "\.\[text\]"'):
        open_dataset('gettext/de', data_dir=str(machine))


def test_catalogs_are_found_where_the_system_keeps_them(machine, tmp_path, monkeypatch):
    places = [tmp_path / 'share' / part / 'de' / 'LC_MESSAGES' / 'here.mo'
              for part in ('locale', 'locale-langpack', 'vim/vim90/lang')]
    for path in places:
        write_catalog(path, {'Yes': 'Ja'})
    monkeypatch.setenv('XDG_DATA_DIRS', f'{tmp_path}/nowhere:{tmp_path}/share')
    assert set(places) <= set(find_catalogs()['de'])
    assert find_catalogs(machine)['de'] == [folder_of(machine) / 'a.mo', folder_of(machine) / 'b.mo']
    assert find_catalogs(tmp_path)['de'] == find_catalogs()['de']         # no folder `locale` in there


@pytest.mark.slow
@pytest.mark.skipif('de' not in find_catalogs(), reason='needs German catalogs on this machine')
def test_the_catalogs_of_this_machine():
    splits, catalogs = read_corpus('de')
    assert len({catalog.fingerprint for catalog in catalogs}) == len(catalogs) > 0
    assert_disjoint(splits)
    for english, german in everything(splits).items():
        assert english == ' '.join(english.split()) and german == ' '.join(german.split()) and english != german


def test_written_and_read_back(machine, tmp_path):
    folder = tmp_path / 'out' / 'german'
    assert write_corpus('de', folder, machine).startswith(f'{folder}: ')
    (written, from_files), (read, from_catalogs) = (opened(name, 'translation', data_dir=str(machine), **SMALL)
                                                    for name in (f'files/{folder}', 'gettext/de'))
    assert written.fingerprint == read.fingerprint
    assert from_files.tokenizer_files == from_catalogs.tokenizer_files
    assert len((folder / 'catalogs.txt').read_text().splitlines()) == 2
    assert [path.name for path in folder.parent.iterdir()] == ['german']


def test_nothing_is_overwritten(machine, tmp_path):
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'mine.txt').write_text('mine')
    for folder in (tmp_path / 'full', tmp_path / 'full' / 'mine.txt'):
        with pytest.raises(UserError, match='`folder` must be new or empty. Received: folder='):
            write_corpus('de', folder, machine)
    with pytest.raises(UserError, match='must name a language'):
        write_corpus('xx', tmp_path / 'new' / 'folder', machine)
    assert not (tmp_path / 'new').exists() and (tmp_path / 'full' / 'mine.txt').read_text() == 'mine'


def test_the_command(machine, tmp_path, monkeypatch, capsys):
    (tmp_path / 'new').mkdir()
    monkeypatch.setattr(sys, 'argv', ['data.gettext', 'de', str(tmp_path / 'new'), '--data_dir', str(machine)])
    assert main() is None
    corpus, licence = capsys.readouterr().out.splitlines()
    assert corpus.endswith('test; from 2 catalogs') and licence.startswith('note: each catalog has the licence of its')
    assert main() == 2 and capsys.readouterr().err.startswith('error: `folder` must be new or empty')


@pytest.mark.slow
def test_the_command_in_a_process_of_its_own(machine, tmp_path, run_python):
    done = run_python('-m', 'data.gettext', 'de', tmp_path / 'new', '--data_dir', machine)
    assert done.stdout.startswith(f'{tmp_path}/new: ') and 'RuntimeWarning' not in done.stderr
