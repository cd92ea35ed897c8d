"""Texts with a class each, as files or as lines.

    FOLDER/SPLIT/CLASS/*.txt      one text per file, as keras.utils.text_dataset_from_directory reads them
    FOLDER/SPLIT.tsv              one text per line: label, a tab, the text
    FOLDER/CLASS/*.txt, FOLDER/texts.tsv      the same without a split of yours, see folders.py

White space around a text is dropped. The classes are those of train, in alphabetical order.
"""

import os

import numpy as np

from data.dataset import Dataset, Label, Text
from data.source import Tensors, split_of
from data.sources.folders import HELD_OUT, check_classes, check_regular, own_splits, shown, three_splits
from data.sources.parallel import read_lines
from errors import UserError

WHOLE = 'texts.tsv'


def holds_tables(folder):
    """Whether this is a folder of TSV files."""
    return (folder / WHOLE).is_file() or any(own_splits(folder, '.tsv').values())


def holds_text_files(folder):
    """Whether the first file below a class's folder is a text."""
    top = own_splits(folder)['train'] or folder
    for parent, folders, names in os.walk(top, followlinks=True):
        folders.sort()
        if parent != str(top):
            for name in sorted(names):
                if not name.startswith('.'):
                    return name.endswith('.txt')
    return False


def open_labelled_tables(name, folder):
    own = own_splits(folder, '.tsv')
    whole = own.pop('train') or folder / WHOLE
    if not whole.is_file():
        raise UserError(f'`dataset` {folder} must hold train.tsv or {WHOLE}')
    return _open(name, folder, {split: read_table(path) if path else None for split, path in own.items()},
                 read_table(whole))


def open_labelled_files(name, folder):
    own = own_splits(folder)
    if not own['train'] or not any(entry.is_dir() for entry in own['train'].iterdir()):
        own = dict.fromkeys(own)           # `train` may also be a class
    whole = own.pop('train') or folder
    return _open(name, folder, {split: read_files(path) if path else None for split, path in own.items()},
                 read_files(whole))


def _open(name, folder, own, whole):
    splits = three_splits(own, whole, lambda example: split_of(example[1], HELD_OUT))
    classes = tuple(sorted({label for label, _ in splits['train']}))
    check_classes(folder, splits, classes, 'texts')
    number = {label: i for i, label in enumerate(classes)}
    sources = (Tensors(text=np.array([text for _, text in examples], object),
                       label=np.array([number[label] for label, _ in examples], np.int32))
               for examples in splits.values())
    return Dataset(name, *sources, fields={'text': Text(), 'label': Label(shown(classes))}, origin=str(folder))


def read_table(path):
    """[(label, text)] of a TSV file.

    Raises:
        UserError: a line is not UTF-8 or has no tab.
    """
    examples = []
    for number, line in enumerate(read_lines(path), 1):
        label, tab, text = line.partition('\t')
        if not tab and line:
            raise UserError(f'`dataset` {path}: each line must be a label, a tab and a text; line {number} has no tab: '
                            f'{line[:40]!r}')
        if line:
            examples.append((label.strip(), text.strip()))
    return examples


def read_files(top):
    """[(class, text)] of all .txt files below a folder's sub-folders, in order of their names."""
    examples = []
    for class_folder in sorted(entry for entry in top.iterdir() if entry.is_dir() and not entry.name.startswith('.')):
        for path in sorted(class_folder.rglob('*.txt')):
            check_regular(path)
            try:
                examples.append((class_folder.name, path.read_text(encoding='utf-8-sig').strip()))
            except UnicodeDecodeError:
                raise UserError(f'`dataset` {path} must be UTF-8') from None
            except OSError as error:
                raise UserError(f'`dataset` {path} cannot be read: {error.strerror}') from None
    return examples
