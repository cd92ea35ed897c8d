"""files/FOLDER with texts: two files in UTF-8 whose lines are each other's translations.

    FOLDER/source.txt, FOLDER/target.txt                 split 80 : 10 : 10 by a hash of each source sentence
    FOLDER/train/source.txt, FOLDER/train/target.txt, ...    your own split: train/, validation/ (or val/), test/

A split that is not there is taken from train by the hash, 10 % each; equal source sentences stay together, and adding
lines moves none from split to split. White space around a sentence is dropped, and so is a pair with an empty side.
"""

import hashlib
import re

import numpy as np

from data.image_folder import SPLITS
from data.source import Tensors
from errors import UserError

SIDES = ('source.txt', 'target.txt')
HELD_OUT = 10     # %
WORDS = re.compile(r'[^\W\d_]+')


class SentencePairs(Tensors):
    """(source, target) sentences in memory. catalogs: what they were read from, if that needs to be told."""

    def __init__(self, pairs, catalogs=()):
        source, target = (np.array(side, object) for side in zip(*pairs))
        super().__init__(source=source, target=target)
        self.catalogs = tuple(catalogs)


def hash_of(sentence):
    """A number of the sentence's letters alone: case, digits and punctuation make no other sentence."""
    words = ' '.join(WORDS.findall(sentence.casefold())) or sentence
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], 'big')


def split_of(sentence, held_out):
    """held_out: % of the sentences that are for validation, and as many for test."""
    return ['validation', 'test', 'train'][min(hash_of(sentence) % 100 // held_out, 2)]


def holds_texts(folder):
    """Whether this is a folder of texts, not of images."""
    names = ('', *(name for names in SPLITS.values() for name in names))
    return any((folder / name / side).is_file() for name in names for side in SIDES)


def open_parallel(folder, text_features):
    """text_features: training source -> features."""
    own = {split: next((folder / name for name in names if _has_text(folder / name)), None)
           for split, names in SPLITS.items()}
    if _has_text(folder) == bool(own['train']):
        raise UserError(f'`dataset` {folder} must hold source.txt and target.txt either itself or in train/. '
                        f'Received: {"both" if own["train"] else "neither"}')
    whole = own.pop('train') or folder
    splits = {'train': [], **{split: read_pairs(part) if part else [] for split, part in own.items()}}
    for pair in read_pairs(whole):
        by_hash = split_of(pair[0], HELD_OUT)
        splits['train' if own.get(by_hash) else by_hash].append(pair)
    empty = [split for split, pairs in splits.items() if not pairs]
    if empty:
        counts = ', '.join(f'{len(pairs)} {split}' for split, pairs in splits.items())
        raise UserError(f'`dataset` {folder} gives an empty split: {", ".join(empty)} (received {counts}); '
                        'add sentences, or make sub-folders train/, validation/ and test/')
    train, *held_out = (SentencePairs(pairs) for pairs in splits.values())
    return train, *held_out, text_features(train)


def _has_text(folder):
    return any((folder / side).is_file() for side in SIDES)


def read_pairs(folder):
    """[(source, target)] of the folder's two files.

    Raises:
        UserError: one is missing or not UTF-8, or they differ in their number of lines.
    """
    source, target = (read_lines(folder / side) for side in SIDES)
    if len(source) != len(target):
        raise UserError(f'`dataset` {folder}: source.txt and target.txt must have equally many lines. '
                        f'Received: {len(source)} and {len(target)} lines')
    return [pair for pair in zip(source, target) if all(pair)]


def read_lines(path):
    """The lines of a file, stripped. Only a line feed ends a line; Unicode's other separators may stand in a text."""
    if not path.is_file():
        raise UserError(f'`dataset` {path.parent} must hold source.txt and target.txt; {path.name} is missing')
    lines, sentences = path.read_bytes().removeprefix(b'\xef\xbb\xbf').split(b'\n'), []
    for number, line in enumerate(lines if lines[-1] else lines[:-1], 1):
        try:
            sentences.append(line.decode().strip())
        except UnicodeDecodeError:
            raise UserError(f'`dataset` {path} must be UTF-8; line {number} is not: {line[:40]!r}') from None
    return sentences
