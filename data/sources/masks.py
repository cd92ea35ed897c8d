"""Images with a mask for each: a PNG file of its size, whose values are the classes of its pixels.

    FOLDER/train/images/NAME.jpg, FOLDER/train/masks/NAME.png, ...      your own split
    FOLDER/images/NAME.jpg, FOLDER/masks/NAME.png                       split by a hash, see folders.py
    FOLDER/classes.txt                                                  a class per line; the first is 0

A mask is grey or has a palette, 1 to 8 bits; of a palette, the numbers count and not the colours. Void are 255, the
number after the last class, and that of a line `void` in classes.txt, which makes no class. Any other value is an
error: the first CHECKED masks of a split are checked when it is opened, the others when they are read.
"""

import os
import struct
import zlib

import numpy as np
import tensorflow as tf

from data.dataset import Dataset, Mask
from data.source import hash_arrays
from data.sources.folders import check_not_empty, check_regular, own_splits, split_of_name, three_splits
from data.sources.parallel import read_lines
from data.sources.pictures import Pictures, image_field, picture_size
from errors import UserError

CHECKED = 1000                          # masks, which take about a second
CLASSES, VOID_LINE = 'classes.txt', 'void'
NEITHER = Mask.void - 1                 # in a table: a value that is neither a class nor void
SIGNATURE, HEAD = b'\x89PNG\r\n\x1a\n', 33           # of a PNG file; bytes until the end of its first chunk
GREY, PALETTE = 0, 3                    # kinds of colour in that chunk


class MaskFiles:
    """Gathers masks: int64 [B] -> uint8 [B, H, W], or string [B], see data.dataset.Mask.

    files: paths. heads: [(width, height, bits, interlace)]. field: the kind. table: uint8 [256], the class of each
    value.
    """

    def __init__(self, files, heads, field, table):
        self._files, self._field = files, field
        with tf.device('CPU:0'):
            self._paths = tf.constant([os.fsencode(file) for file in files])
            self._heads = tf.constant([_grey_head(*head) for head in heads])
            # TensorFlow spreads the values of fewer than 8 bits over 0 to 255.
            self._spread = tf.constant([255 // (2 ** head[2] - 1) for head in heads])
            self._table = tf.constant(table)

    def __call__(self, indices):
        spec = tf.TensorSpec([], tf.string) if self._field.encoded else tf.TensorSpec(self._field.shape, tf.uint8)
        masks = tf.map_fn(self._one, indices, fn_output_signature=spec)
        return tf.ensure_shape(masks, [indices.shape[0], *spec.shape])

    def _one(self, index):
        values = self._values(index)
        mask = tf.gather(self._table, tf.cast(values, tf.int32))
        legal = tf.debugging.Assert(tf.reduce_all(mask != NEITHER), ['a value of a mask is neither a class nor void'])
        with tf.control_dependencies([legal]):
            return encode(mask) if self._field.encoded else tf.ensure_shape(mask, self._field.shape)

    def _values(self, index):
        """int64 scalar -> uint8 [h, w], as they are in the file.

        A file with a palette is read as a grey one: they differ in their heads only.
        """
        file = tf.io.read_file(tf.gather(self._paths, index))
        file = tf.strings.join([tf.gather(self._heads, index), tf.strings.substr(file, HEAD, -1)])
        values = tf.cast(tf.io.decode_png(file, channels=1)[..., 0], tf.int32)
        return tf.cast(values // tf.gather(self._spread, index), tf.uint8)

    def check(self, count):
        """Raises UserError where one of the first masks is broken, or has a value that is neither a class nor void."""
        def unknown(index):
            values = tf.cast(self._values(index), tf.int32)
            return tf.reduce_max(tf.where(tf.gather(self._table, values) == NEITHER, values, -1))
        checks = iter(tf.data.Dataset.range(min(count, len(self._files))).map(unknown, tf.data.AUTOTUNE))
        for file in self._files[:count]:
            try:
                value = int(next(checks))
            except tf.errors.OpError:
                raise UserError(f'`dataset` {file} is broken: it cannot be read as a PNG file') from None
            if value >= 0:
                raise UserError(f'`dataset` {file} must have values of classes ({CLASSES}) or void. Received: {value}')

    def find_unreadable(self):
        """The first mask that is broken, or has a value that is neither a class nor void; or None."""
        for index, file in enumerate(self._files):
            try:
                self._one(tf.constant(index, tf.int64))
            except (tf.errors.OpError, ValueError):
                return str(file)
        return None


def encode(mask):
    """uint8 [h, w] -> the bytes of a grey PNG file."""
    return tf.io.encode_png(mask[..., None], compression=1)


def holds_masks(folder):
    return any((folder / name / 'masks').is_dir() and (folder / name / 'images').is_dir() for name in ('', 'train'))


def open_masks(name, folder):
    own = own_splits(folder)
    if _has(folder) == bool(own['train'] and _has(own['train'])):
        raise UserError(f'`dataset` {folder} must hold images/ and masks/ either itself or in train/. Received: both')
    whole = _pairs(folder if _has(folder) else own['train'])
    held_out = {split: _pairs(own[split]) if own[split] else None for split in ('validation', 'test')}
    splits = three_splits(held_out, whole, lambda pair: split_of_name(pair[0].stem))
    check_not_empty(folder, splits, 'images')
    names, table = _classes(folder)
    heads = {split: [_checked_head(*pair) for pair in pairs] for split, pairs in splits.items()}
    sizes = [head[:2] for part in heads.values() for head in part]
    image = image_field(sizes)
    largest = tuple(map(max, zip(*sizes)))[::-1] if image.encoded else (0, 0)
    fields = {'image': image, 'mask': Mask(names, image.shape[:2], largest)}
    sources = [_source(splits[split], heads[split], fields, table) for split in splits]
    return Dataset(name, *sources, fields=fields, origin=str(folder))


def _source(pairs, heads, fields, table):
    images, files = zip(*pairs)
    masks = MaskFiles(files, heads, fields['mask'], table)
    masks.check(CHECKED)
    about = hash_arrays({'table': table, 'names': np.array(fields['mask'].names, object),
                         'masks': np.array([f'{file} {os.path.getsize(file)}' for file in files], object)})
    return Pictures(images, fields['image'], about, mask=masks)


def _has(folder):
    return (folder / 'images').is_dir() and (folder / 'masks').is_dir()


def _pairs(folder):
    """[(image, mask)] of a split's folder, sorted by name."""
    if not _has(folder):
        raise UserError(f'`dataset` {folder} must have images/ and masks/, as train has')
    images, masks = _by_stem(folder / 'images'), _by_stem(folder / 'masks')
    for mine, other, what in ((images, 'masks', 'mask'), (masks, 'images', 'image')):
        lone = sorted(set(mine) - set(images if other == 'images' else masks))
        if lone:
            raise UserError(f'`dataset` {mine[lone[0]]} has no {what}: {folder / other / lone[0]} is missing')
    return [(images[stem], masks[stem]) for stem in sorted(images)]


def _by_stem(folder):
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith('.'):
            continue
        if path.stem in found:
            raise UserError(f'`dataset` {path} must differ from other files by more than its ending. '
                            f'Received: {found[path.stem].name} too')
        found[path.stem] = path
    return found


def _classes(folder):
    """(names of the classes, uint8 [256]: class of each value)."""
    path = folder / CLASSES
    if not path.is_file():
        raise UserError(f'`dataset` {folder} must have {CLASSES}, with the name of a class per line')
    lines = read_lines(path)
    names = tuple(line for line in lines if line != VOID_LINE)
    if not 0 < len(names) < NEITHER or len(set(names)) < len(names) or not all(names):
        raise UserError(f'`dataset` {path} must have a name of its own for each class, at most {NEITHER - 1}. '
                        f'Received: {len(names)} lines, {len(set(filter(None, names)))} names')
    table = np.full(256, NEITHER, np.uint8)
    table[:len(lines)] = [names.index(line) if line != VOID_LINE else Mask.void for line in lines]
    table[[len(lines), 255]] = Mask.void
    return names, table


def _checked_head(image, mask):
    """(width, height, bits, interlace) of a mask; it must be one, and of the size of its image."""
    check_regular(mask)
    with open(mask, 'rb') as file:
        start = file.read(HEAD)
    if not start.startswith(SIGNATURE) or len(start) < HEAD:
        raise UserError(f'`dataset` {mask} must be a PNG file: other formats change the values of a mask')
    width, height, bits, colour = struct.unpack('>IIBB', start[16:26])
    if colour not in (GREY, PALETTE) or bits > 8:
        raise UserError(f'`dataset` {mask} must be grey or have a palette, 1 to 8 bits. '
                        f'Received: {bits} bits, {_colour(colour)}')
    size = picture_size(image)
    if size != (width, height):
        raise UserError(f'`dataset` {mask} must have the size of its image, {size[0]}x{size[1]}. '
                        f'Received: {width}x{height}')
    return width, height, bits, start[28]


def _colour(kind):
    return {GREY: 'grey', 2: 'RGB', PALETTE: 'palette', 4: 'grey with alpha', 6: 'RGB with alpha'}.get(kind, 'unknown')


def _grey_head(width, height, bits, interlace):
    """The first HEAD bytes of a grey PNG file: signature, and a chunk with its checksum."""
    chunk = b'IHDR' + struct.pack('>IIBBBBB', width, height, bits, GREY, 0, 0, interlace)
    return SIGNATURE + struct.pack('>I', 13) + chunk + struct.pack('>I', zlib.crc32(chunk))
