"""Writes gettext/LANG out as text files, which are the same dataset as files/FOLDER on any machine.

    python -m data.gettext de german
    python train.py --recipe=... --dataset=files/german

FOLDER gets train/, validation/ and test/, each with source.txt (English) and target.txt, a sentence a line; and
catalogs.txt: path, fingerprint and number of pairs of each catalog that they came from.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from data.sources.catalogs import read_corpus
from data.sources.parallel import SIDES
from errors import FAILED, USAGE, UserError


def write_corpus(language, folder, data_dir=None):
    """Writes the files; returns a line that says what they hold.

    Raises:
        UserError: the folder is there and not empty, or there is no such corpus. Nothing is written then.
    """
    if '://' in str(folder):      # Path would make a folder of this name
        raise UserError(f'`folder` must be a path on this machine. Received: folder={folder!r}')
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f'`folder` must be new or empty. Received: folder={str(folder)!r}')
    splits, catalogs = read_corpus(language, data_dir)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f'.{folder.name}-') as parts:
        new = Path(parts) / 'new'      # renamed when it is whole
        new.mkdir()
        (new / 'catalogs.txt').write_text(''.join(f'{catalog}\n' for catalog in catalogs), encoding='utf-8')
        for split, pairs in splits.items():
            (new / split).mkdir()
            for name, sentences in zip(SIDES, zip(*pairs)):
                (new / split / name).write_text(''.join(f'{text}\n' for text in sentences), encoding='utf-8')
        new.rename(folder)
    sizes = ', '.join(f'{len(pairs):,} {split}' for split, pairs in splits.items())
    return f'{folder}: {sizes}; from {len(catalogs)} catalogs'


def main():
    parser = argparse.ArgumentParser('python -m data.gettext', description=__doc__.partition('\n')[0])
    parser.add_argument('language', metavar='LANG', help='a folder\'s name where the catalogs are: de, zh_CN, ...')
    parser.add_argument('folder', metavar='FOLDER', help='a new or empty folder')
    parser.add_argument('--data_dir', help='read the catalogs below DATA_DIR/locale')
    arguments = parser.parse_args()
    try:
        print(write_corpus(arguments.language, arguments.folder, arguments.data_dir))
        print('note: each catalog has the licence of its program, mostly GPL; see docs/data.md before you pass this on')
    except UserError as error:
        return _fail(error, USAGE)
    except OSError as error:
        return _fail(f'{error.strerror}: {error.filename}', FAILED)


def _fail(message, code):
    print(f'error: {message}', file=sys.stderr)
    return code


if __name__ == '__main__':
    sys.exit(main())
