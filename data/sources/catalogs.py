"""gettext/LANG: real English-LANG sentence pairs from the message catalogs of the machine.

Programs bring their translations as catalogs, LOCALE/LANG/LC_MESSAGES/NAME.mo. Those below DATA_DIR/locale are read if
that folder is there, so that a copy of it pins the corpus; else those of this machine: in the data folders of the
system, of the user and of Python, where gettext looks, and in Python's packages.

messages.py cleans the pairs. Each English sentence is kept once, with the translation that most catalogs give (the
first in order, of equally many). Splits are 90 : 5 : 5 by a hash of the letters of the English sentence: no sentence
is in two splits, and none moves when another program is installed. What the corpus holds differs between machines: the
fingerprint names it, `catalogs` lists what it came from, and `python -m data.gettext LANG FOLDER` writes it out.
"""

import dataclasses
import gettext
import hashlib
import os
import re
import site
import struct
import sys
from collections import Counter
from pathlib import Path

from data.dataset import Dataset, Text
from data.source import hash_of, split_of
from data.sources.messages import clean_pair, message_pairs
from data.sources.parallel import sentence_pairs
from data.tokenizers.packages import text_package
from errors import UserError

HELD_OUT = 5          # % of the sentences for validation, and as many for test
LOCALES = ('locale', 'locale-*', 'vim/*/lang')     # below a data folder: a distribution's, its language packs', Vim's
FORMS = re.compile(r'plural\s*=\s*([^;]+)')


@dataclasses.dataclass(frozen=True)
class Catalog:
    path: Path
    pairs: tuple          # (English, translation) of its messages, as they stand there
    fingerprint: str

    def __str__(self):
        return f'{self.path} {self.fingerprint} {len(self.pairs)}'


def open_gettext(language, data_dir=None):
    splits, catalogs = read_corpus(language, data_dir)
    sources = [sentence_pairs(pairs) for pairs in splits.values()]
    fingerprint = '-'.join(source.fingerprint for source in sources)
    return Dataset(f'gettext/{language}', *sources, fields={'source': Text('en'), 'target': Text(language)},
                   origin=f'{len(catalogs)} catalogs, {fingerprint}')


def read_corpus(language, data_dir=None):
    """Returns ({split: [(English, translation)]}, [Catalog]).

    Raises:
        UserError: there is no catalog of that language, or its catalogs give no pairs for one of the splits.
    """
    polib, found = text_package('polib'), find_catalogs(data_dir)
    if language not in found:
        raise UserError(f'`dataset` gettext/LANG must name a language of the catalogs in {_places(data_dir)}: '
                        f'{", ".join(found) or "there are none"}. Received: dataset=gettext/{language}')
    catalogs = {}
    for path in found[language]:
        catalog = read_catalog(path, polib)
        if catalog:
            catalogs.setdefault(catalog.fingerprint, catalog)       # the same file at two places counts once
    splits = split_pairs(merge(catalogs.values()))
    if not all(splits.values()):
        raise UserError(f'`dataset` gettext/{language}: its {len(found[language])} catalogs give too few sentences: '
                        + ', '.join(f'{len(pairs)} {split}' for split, pairs in splits.items()))
    return splits, sorted(catalogs.values(), key=lambda catalog: catalog.path)


def find_catalogs(data_dir=None):
    """{language: [paths of its catalogs]}, sorted."""
    languages = {}
    for locale in _locales(data_dir):
        for path in locale.glob('*/LC_MESSAGES/*.mo'):
            languages.setdefault(path.parent.parent.name, set()).add(path)
    return {language: sorted(paths) for language, paths in sorted(languages.items())}


def _locales(data_dir):
    if data_dir and (own := Path(data_dir).expanduser() / 'locale').is_dir():
        return [own]
    shared = os.environ.get('XDG_DATA_DIRS') or '/usr/local/share:/usr/share'
    user = os.environ.get('XDG_DATA_HOME') or '~/.local/share'
    folders = [*shared.split(':'), user, f'{sys.prefix}/share', f'{sys.base_prefix}/share']
    found = {locale for folder in folders for pattern in LOCALES for locale in Path(folder).expanduser().glob(pattern)}
    return found | {Path(parent) / 'locale' for packages in site.getsitepackages()
                    for parent, folders, _ in os.walk(packages) if 'locale' in folders}


def _places(data_dir):
    return f'{data_dir}/locale' if data_dir and (Path(data_dir).expanduser() / 'locale').is_dir() else 'this machine'


def read_catalog(path, polib):
    """The catalog in a file, or None if it is none: gettext itself passes over a broken file, too."""
    try:
        content = path.read_bytes()      # first: where it cannot be read, polib would complain on stderr
        catalog = polib.mofile(str(path))
        form_of = gettext.c2py(FORMS.search(catalog.metadata.get('Plural-Forms', 'plural=n != 1;'))[1])
        pairs = tuple(pair for entry in catalog
                      for pair in message_pairs(entry.msgid, entry.msgid_plural,
                                                dict(entry.msgstr_plural) or {0: entry.msgstr}, form_of))
        return Catalog(path, pairs, hashlib.sha256(content).hexdigest()[:16])
    except (OSError, ValueError, LookupError, TypeError, struct.error):      # no catalog, no such charset, no formula
        return None


def merge(catalogs):
    """{English: translation} of all catalogs' pairs, cleaned."""
    votes = {}
    for pair in Counter(pair for catalog in catalogs for pair in catalog.pairs).items():
        (english, translation), count = clean_pair(*pair[0]) or ('', ''), pair[1]
        if english:
            votes.setdefault(english, Counter())[translation] += count
    return {english: min(counts, key=lambda translation: (-counts[translation], translation))
            for english, counts in votes.items()}


def split_pairs(pairs):
    """{English: translation} -> {split: [(English, translation)]}, in the order of hashes: as good as shuffled."""
    splits = {'train': [], 'validation': [], 'test': []}
    for pair in sorted(pairs.items(), key=lambda pair: (hash_of(pair[0]), pair)):
        splits[split_of(pair[0], HELD_OUT)].append(pair)
    return splits
