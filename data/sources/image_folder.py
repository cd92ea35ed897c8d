"""Your own images, one sub-folder per class; JPEG, PNG, BMP, GIF or WebP, told by content.

    FOLDER/cat/1.jpg, FOLDER/dog/2.png                    split by a hash of each file's name, see folders.py
    FOLDER/train/cat/1.jpg, FOLDER/test/dog/2.png, ...    your own split
"""

import hashlib
import os
from pathlib import Path

import tensorflow as tf

from data.dataset import Dataset, Image, Label
from data.inputs import image_files
from data.sources.folders import check_classes, is_special, own_splits, shown, split_of_name, three_splits
from errors import UserError


class ImageFiles:
    """Images as the bytes of their files, read when they are needed.

    files: names below folder, each in its class's folder.
    """

    in_memory, decodes_files = False, True

    def __init__(self, folder, files, classes, labels):
        self.num_examples = len(files)
        self.fingerprint = _fingerprint(folder, files, classes)
        with tf.device('CPU:0'):
            self._paths = tf.constant([os.fsencode(folder / file) for file in files])     # names need not be UTF-8
            self._labels = tf.constant(labels, tf.int32)

    def gather(self, indices, fields=None):
        gathered = {}
        for name in fields or ('image', 'label'):
            if name == 'image':
                gathered[name] = tf.map_fn(tf.io.read_file, tf.gather(self._paths, indices))
            else:
                gathered[name] = tf.gather(self._labels, indices)
        return gathered

    def find_unreadable(self):
        """The first file that cannot be read and decoded, or None. Slow: for the message after a failure."""
        for path in self._paths:
            try:
                image_files.decode(tf.io.read_file(path))
            except tf.errors.OpError:
                return os.fsdecode(path.numpy())
        return None


def open_image_folder(name, folder):
    splits = _split(folder)
    if not any(splits.values()):
        raise UserError(f'`dataset` {folder} holds no images: put them into one sub-folder per class; '
                        f'nor texts: in sub-folders, train.tsv, or source.txt and target.txt')
    classes = sorted({class_name for class_name, _ in splits['train']})
    check_classes(folder, splits, classes, 'images')
    _check_contents(folder, [file for examples in splits.values() for _, file in examples])
    sources = (ImageFiles(folder, [file for _, file in examples], classes,
                          [classes.index(class_name) for class_name, _ in examples])
               for examples in splits.values())
    return Dataset(name, *sources, fields={'image': Image((0, 0, 3)), 'label': Label(shown(classes))},
                   origin=str(folder))


def _split(folder):
    """{'train': [(class name, file name below folder), ...], 'validation': ..., 'test': ...}."""
    own = own_splits(folder)
    if not own['train'] or not any(entry.is_dir() for entry in own['train'].iterdir()):
        own = dict.fromkeys(own)           # `train` may also be a class, of a folder of vehicles
    whole = own.pop('train') or folder
    held_out = {split: _list(folder, path) if path else None for split, path in own.items()}
    return three_splits(held_out, _list(folder, whole), lambda example: split_of_name(example[1]))


def _list(folder, top):
    """[(class name, file name below folder)] of all files below `top`, at any depth, that are not hidden; sorted."""
    examples = []
    for parent, folders, names in os.walk(top, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith('.')]
        if Path(parent) == top:
            continue                       # what lies beside the classes has no class: a README, a label list
        class_name = Path(parent).relative_to(top).parts[0]
        below = Path(parent).relative_to(folder)
        examples += [(class_name, (below / name).as_posix()) for name in names if not name.startswith('.')]
    return sorted(examples)


def _check_contents(folder, files):
    special = next((file for file in files if is_special(folder / file)), None)
    if special is not None:
        raise UserError(f'`dataset` {folder} must hold regular files only. '
                        f'Received: {special}, a pipe, socket or device')
    bad = [file for file in files if not image_files.has_known_format(_first_bytes(folder / file))]
    if bad:
        raise UserError(f'`dataset` {folder}: {len(bad)} of {len(files)} files are not {image_files.FORMATS} images; '
                        f'the first is {bad[0]}. Convert or remove them')


def _first_bytes(path):
    try:
        with open(path, 'rb') as file:
            return file.read(16)
    except OSError:                        # a broken link, no permission
        return b''


def _fingerprint(folder, files, classes):
    sizes = [f'{file} {(folder / file).stat().st_size}' for file in files]
    return hashlib.sha256('\n'.join([*classes, '', *sizes]).encode('utf-8', 'surrogateescape')).hexdigest()[:16]
