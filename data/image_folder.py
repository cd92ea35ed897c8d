"""files/FOLDER: your own images, one sub-folder a class; JPEG, PNG, BMP or GIF, told by content.

    FOLDER/cat/1.jpg, FOLDER/dog/2.png                    split 80 : 10 : 10 by a hash of each file's name
    FOLDER/train/cat/1.jpg, FOLDER/test/dog/2.png, ...    your own split: train/, validation/ (or val/), test/

A split that is not there is taken from train by the hash, 10 % each; so adding files moves none from split to split.
"""

import hashlib
import os
from pathlib import Path

import tensorflow as tf

from data.features import ImageFeatures
from data.images import decode_images
from errors import UserError

SIGNATURES = (b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n', b'BM', b'GIF87a', b'GIF89a')
SPLITS = {'train': ('train',), 'validation': ('validation', 'val'), 'test': ('test',)}


class ImageFiles:
    """Images read, decoded and resized when they are needed. files: names below folder, each in its class's folder."""

    def __init__(self, folder, files, classes, labels, image_shape):
        self.num_examples = len(files)
        self.fingerprint = _fingerprint(folder, files, classes)
        self._image_shape = image_shape
        with tf.device('CPU:0'):
            self._paths = tf.constant([str(folder / file) for file in files])
            self._labels = tf.constant(labels, tf.int32)

    def gather(self, indices):
        encoded = tf.map_fn(tf.io.read_file, tf.gather(self._paths, indices))
        return {'image': decode_images(encoded, self._image_shape), 'label': tf.gather(self._labels, indices)}

    def find_unreadable(self):
        """The first file that cannot be read and decoded, or None. Slow: for the message after a failure."""
        for path in self._paths:
            try:
                decode_images(tf.io.read_file(path)[None], self._image_shape)
            except tf.errors.OpError:
                return path.numpy().decode()
        return None


def open_image_folder(path, image_shape, data_dir=None):
    folder, shape = find_folder(path, data_dir), image_shape((0, 0, 3))
    if not all(shape):
        raise UserError(f'`image_size` is needed for dataset=files/{path}, to resize the images to. '
                        f'Received: image_size=0')
    splits = _split(folder)
    classes = sorted({class_name for class_name, _ in splits['train']})
    _check_splits(folder, splits, classes)
    _check_contents(folder, [file for examples in splits.values() for _, file in examples])
    sources = [ImageFiles(folder, [file for _, file in examples], classes,
                          [classes.index(class_name) for class_name, _ in examples], shape)
               for examples in splits.values()]
    return (*sources, ImageFeatures(shape, classes))


def find_folder(path, data_dir):
    """The folder that files/PATH names: PATH itself, or DATA_DIR/PATH."""
    tried = [Path(path).expanduser(), *([Path(data_dir).expanduser() / path] if data_dir and path else [])]
    found = next((folder for folder in tried if path and folder.is_dir()), None)
    if found is None:
        raise UserError(f'`dataset` files/FOLDER needs a folder that exists. Received: dataset=files/{path}; '
                        f'looked for {" and ".join(str(folder.absolute()) for folder in tried)}')
    return found


def _split(folder):
    """{'train': [(class name, file name below folder), ...], 'validation': ..., 'test': ...}."""
    own = {split: next((name for name in names if (folder / name).is_dir()), None) for split, names in SPLITS.items()}
    has_own = own['train'] and any(entry.is_dir() for entry in (folder / own['train']).iterdir())
    if not has_own:                        # `train` may also be a class, of a folder of vehicles
        own = dict.fromkeys(SPLITS)
    splits = {split: _list(folder, name) if name else [] for split, name in own.items()}
    for class_name, file in splits.pop('train') if has_own else _list(folder, ''):
        by_hash = _split_of(file)
        splits.setdefault('train' if own[by_hash] else by_hash, []).append((class_name, file))
    return {split: splits.get(split, []) for split in SPLITS}


def _split_of(file):
    """The same file name falls into the same split for ever."""
    tenth = int(hashlib.sha256(file.encode('utf-8', 'surrogateescape')).hexdigest(), 16) % 10
    return {0: 'validation', 1: 'test'}.get(tenth, 'train')


def _list(folder, split):
    """[(class name, file name below folder)] of all files, at any depth, that are not hidden; sorted."""
    examples, top = [], folder / split
    for parent, folders, names in os.walk(top, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith('.')]
        if Path(parent) == top:
            continue                       # what lies beside the classes has no class: a README, a label list
        class_name = Path(parent).relative_to(top).parts[0]
        below = Path(parent).relative_to(folder)
        examples += [(class_name, (below / name).as_posix()) for name in names if not name.startswith('.')]
    return sorted(examples)


def _check_splits(folder, splits, classes):
    counts = ', '.join(f'{len(examples)} {split}' for split, examples in splits.items())
    if not any(splits.values()):
        raise UserError(f'`dataset` {folder} holds no images: put them into one sub-folder a class; '
                        f'nor texts: source.txt and target.txt')
    found = {class_name for examples in splits.values() for class_name, _ in examples}
    if len(found) == 1:
        raise UserError(f'`dataset` {folder} must have at least two classes (sub-folders). '
                        f'Received: only {found.pop()!r}')
    empty = [split for split, examples in splits.items() if not examples]
    if empty:
        raise UserError(f'`dataset` {folder} gives an empty split: {", ".join(empty)} (received {counts}); '
                        f'add images, or make sub-folders train/, validation/ and test/')
    for split, examples in splits.items():
        unknown = sorted({class_name for class_name, _ in examples} - set(classes))
        if unknown:
            raise UserError(f'`dataset` {folder}: {split} has classes that train has not: {", ".join(unknown)}')


def _check_contents(folder, files):
    bad = [file for file in files if not _first_bytes(folder / file).startswith(SIGNATURES)]
    if bad:
        raise UserError(f'`dataset` {folder}: {len(bad)} of {len(files)} files are not JPEG, PNG, BMP or GIF images; '
                        f'the first is {bad[0]}. Convert or remove them')


def _first_bytes(path):
    try:
        with open(path, 'rb') as file:
            return file.read(8)
    except OSError:                        # a broken link, no permission
        return b''


def _fingerprint(folder, files, classes):
    sizes = [f'{file} {(folder / file).stat().st_size}' for file in files]
    return hashlib.sha256('\n'.join([*classes, '', *sizes]).encode('utf-8', 'surrogateescape')).hexdigest()[:16]
