"""Two parallel texts in a folder: two files in UTF-8 whose lines are each other's translations.

    FOLDER/source.txt, FOLDER/target.txt                 split by a hash of each source sentence, see folders.py
    FOLDER/train/source.txt, FOLDER/train/target.txt, ...    your own split

Equal source sentences stay together. White space around a sentence is dropped, and so is a pair with an empty side.
"""

import numpy as np

from data.dataset import Dataset, Text
from data.source import Tensors, split_of
from data.sources.folders import HELD_OUT, SPLITS, check_not_empty, check_regular, own_splits, three_splits
from errors import UserError

SIDES = ('source.txt', 'target.txt')


def sentence_pairs(pairs):
    """A source of [(source, target)] in memory."""
    source, target = (np.array(side, object) for side in zip(*pairs))
    return Tensors(source=source, target=target)


def holds_parallel(folder):
    """Whether this is a folder of two parallel texts."""
    names = ('', *(name for names in SPLITS.values() for name in names))
    return any((folder / name / side).is_file() for name in names for side in SIDES)


def open_parallel(name, folder):
    own = {split: path if path and _has_text(path) else None for split, path in own_splits(folder).items()}
    if _has_text(folder) == bool(own['train']):
        raise UserError(f'`dataset` {folder} must hold source.txt and target.txt either itself or in train/. '
                        f'Received: {"both" if own["train"] else "neither"}')
    whole = own.pop('train') or folder
    held_out = {split: read_pairs(path) if path else None for split, path in own.items()}
    splits = three_splits(held_out, read_pairs(whole), lambda pair: split_of(pair[0], HELD_OUT))
    check_not_empty(folder, splits, 'sentences')
    return Dataset(name, *(sentence_pairs(pairs) for pairs in splits.values()),
                   fields={'source': Text(), 'target': Text()}, origin=str(folder))


def _has_text(folder):
    return any((folder / side).is_file() for side in SIDES)


def read_pairs(folder):
    """[(source, target)] of the folder's two files.

    Raises:
        UserError: one is missing or not UTF-8, or they differ in their number of lines.
    """
    missing = [side for side in SIDES if not (folder / side).is_file()]
    if missing:
        raise UserError(f'`dataset` {folder} must hold source.txt and target.txt; {missing[0]} is missing')
    source, target = (read_lines(folder / side) for side in SIDES)
    if len(source) != len(target):
        raise UserError(f'`dataset` {folder}: source.txt and target.txt must have equally many lines. '
                        f'Received: {len(source)} and {len(target)} lines')
    return [pair for pair in zip(source, target) if all(pair)]


def read_lines(path):
    """The lines of a file, stripped. Only a line feed ends a line; Unicode's other separators may stand in a text."""
    check_regular(path)
    lines, sentences = path.read_bytes().removeprefix(b'\xef\xbb\xbf').split(b'\n'), []
    for number, line in enumerate(lines if lines[-1] else lines[:-1], 1):
        try:
            sentences.append(line.decode().strip())
        except UnicodeDecodeError:
            raise UserError(f'`dataset` {path} must be UTF-8; line {number} is not: {line[:40]!r}') from None
    return sentences
