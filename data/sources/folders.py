"""What all folders of a user's own data share: where they are found, and how they are split.

    FOLDER/...            split 80 : 10 : 10 by a hash of each example
    FOLDER/train/...      your own split: train/, validation/ (or val/, valid/, dev/), test/

A split that is not there is taken from train by the hash, 10 % each, so adding examples moves none from split to split.
"""

import hashlib
import os
from pathlib import Path

from errors import UserError

SPLITS = {'train': ('train',), 'validation': ('validation', 'val', 'valid', 'dev'), 'test': ('test',)}
HELD_OUT = 10     # % of the examples for validation, and as many for test


def find_folder(path, data_dir):
    """The folder that files/PATH names: PATH itself, or DATA_DIR/PATH."""
    tried = [Path(path).expanduser(), *([Path(data_dir).expanduser() / path] if data_dir and path else [])]
    found = next((folder for folder in tried if path and folder.is_dir()), None)
    if found is None:
        raise UserError(f'`dataset` files/FOLDER needs a folder that exists. Received: dataset=files/{path}; '
                        f'looked for {" and ".join(str(folder.absolute()) for folder in tried)}')
    return found


def own_folder(name, data_dir):
    """DATA_DIR/NAME, unless TensorFlow Datasets prepared it there."""
    folder = Path(data_dir).expanduser() / name if data_dir else None
    if folder is None or not folder.is_dir() or not any(folder.iterdir()) or _is_tfds(folder):
        return None
    return folder


def _is_tfds(folder):
    """TFDS writes NAME/VERSION/dataset_info.json, or NAME/CONFIGURATION/VERSION/dataset_info.json."""
    return any(next(folder.glob(f'{depth}/dataset_info.json'), None) for depth in ('.', '*', '*/*'))


def own_splits(folder, suffix=''):
    """{split: its path below a folder, or None}: `train`, or with a suffix `train.tsv`."""
    return {split: next((folder / f'{name}{suffix}' for name in names if (folder / f'{name}{suffix}').exists()), None)
            for split, names in SPLITS.items()}


def three_splits(own, whole, split_of):
    """{split: [examples]} from the splits that a user has made.

    Args:
        own: {'validation': [examples] or None, 'test': ...}. whole: all other examples.
        split_of: function (example) -> the split that its hash names.
    """
    splits = {'train': [], **{split: list(examples or ()) for split, examples in own.items()}}
    for example in whole:
        by_hash = split_of(example)
        splits['train' if own.get(by_hash) is not None else by_hash].append(example)
    return splits


def split_of_name(name):
    """The split of the example of this name: the same for ever, whatever else is in the folder."""
    tenth = int(hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest(), 16) % 10
    return {0: 'validation', 1: 'test'}.get(tenth, 'train')


def shown(names):
    """Names of folders -> text that can be printed and served: U+FFFD replaces what is not UTF-8."""
    return tuple(os.fsencode(name).decode('utf-8', 'replace') for name in names)


def is_special(path):
    """Whether it is what open() or read() would wait for without end. A broken link is not."""
    return not path.is_file() and path.exists()


def check_regular(path):
    """Raises UserError where a path is a pipe or a device, which may never end."""
    if is_special(path):
        raise UserError(f'`dataset` {path} must be a regular file, not a folder, pipe or device')


def check_not_empty(folder, splits, what):
    """Raises UserError where a split has no examples. what: their name in the message, images or sentences."""
    empty = [split for split, examples in splits.items() if not examples]
    if empty:
        counts = ', '.join(f'{len(examples)} {split}' for split, examples in splits.items())
        raise UserError(f'`dataset` {folder} gives an empty split: {", ".join(empty)} (received {counts}); '
                        f'add {what}, or make sub-folders train/, validation/ and test/')


def check_classes(folder, splits, classes, what):
    """Raises UserError unless there are two classes, no split is empty, and train has all classes of the others.

    splits: {split: [(class name, example)]}. classes: those of train. what: as `check_not_empty`.
    """
    found = {class_name for examples in splits.values() for class_name, _ in examples}
    if len(found) == 1:
        raise UserError(f'`dataset` {folder} must have at least two classes. Received: only {found.pop()!r}')
    check_not_empty(folder, splits, what)
    for split, examples in splits.items():
        unknown = sorted({class_name for class_name, _ in examples} - set(classes))
        if unknown:
            raise UserError(f'`dataset` {folder}: {split} has classes that train has not: {", ".join(unknown)}')
