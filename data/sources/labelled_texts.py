"""Texts with a class each, as files or as lines.

    FOLDER/SPLIT/CLASS/*.txt      one text per file, as keras.utils.text_dataset_from_directory reads them
    FOLDER/SPLIT.tsv              one text per line: label, a tab, the text
    FOLDER/SPLIT.csv              as spreadsheets write it, with a header that names the columns label and text
    FOLDER/SPLIT.jsonl            one JSON object per line, {"label": ..., "text": ...}
    FOLDER/CLASS/*.txt, FOLDER/texts.tsv, .csv, .jsonl      the same without a split of yours, see folders.py

White space around a text is dropped. The classes are those of train, in alphabetical order.
"""

import csv
import json
import os

import numpy as np

from data.dataset import Dataset, Label, Text
from data.source import Tensors, split_of
from data.sources.folders import HELD_OUT, check_classes, check_regular, own_splits, shown, three_splits
from data.sources.parallel import read_lines
from errors import UserError

WHOLE = 'texts'
COLUMNS = 'label', 'text'


def holds_tables(folder):
    """Whether this is a folder of tables."""
    return _suffix(folder) is not None


def _suffix(folder):
    """The first kind of tables that a folder has."""
    return next((suffix for suffix in READERS if (folder / f'{WHOLE}{suffix}').is_file()
                 or any(path is not None and path.is_file() for path in own_splits(folder, suffix).values())), None)


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
    suffix = _suffix(folder)
    own, read = own_splits(folder, suffix), READERS[suffix]
    whole = own.pop('train') or folder / f'{WHOLE}{suffix}'
    if not whole.is_file():
        raise UserError(f'`dataset` {folder} must hold train{suffix} or {WHOLE}{suffix}')
    return _open(name, folder, {split: read(path) if path else None for split, path in own.items()}, read(whole))


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


def read_csv(path):
    """[(label, text)] of a CSV file with a header.

    Raises:
        UserError: it is not UTF-8, or lacks a column, or a row has not both.
    """
    check_regular(path)
    try:
        with path.open(encoding='utf-8-sig', newline='') as file:
            rows = csv.DictReader(file)
            if not set(COLUMNS) <= set(rows.fieldnames or ()):
                raise UserError(f'`dataset` {path} must have a header with the columns label and text. Received: '
                                f'{", ".join(rows.fieldnames or ()) or "nothing"}')
            examples = []
            for row in rows:
                if None in (row['label'], row['text']):
                    raise UserError(f'`dataset` {path}: each row must have a label and a text; that which ends at '
                                    f'line {rows.line_num} has not')
                examples.append((row['label'].strip(), row['text'].strip()))
            return examples
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f'`dataset` {path} must be CSV in UTF-8 ({error})') from None


def read_json_lines(path):
    """[(label, text)] of a file of JSON objects, one per line.

    Raises:
        UserError: a line is none, or lacks one of the two.
    """
    examples = []
    for number, line in enumerate(read_lines(path), 1):
        try:
            row = json.loads(line) if line else None
        except ValueError:
            row = ()
        if row is None:
            continue
        if not isinstance(row, dict) or not isinstance(row.get('text'), str) or not isinstance(
                row.get('label'), (str, int)):
            raise UserError(f'`dataset` {path}: each line must be a JSON object with a label and a text; line {number} '
                            f'is not: {line[:40]!r}')
        examples.append((str(row['label']), row['text'].strip()))
    return examples


READERS = {'.tsv': read_table, '.csv': read_csv, '.jsonl': read_json_lines}


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
