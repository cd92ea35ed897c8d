"""Folders of images with masks; one clear line for each thing that is wrong with them."""

import os
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image as Picture

from data import open_dataset
from data.dataset import Image, Mask
from data.sources import masks
from errors import UserError
from tests.conftest import REAL_DATA

SPLITS = {'train': 3, 'val': 1, 'test': 2}
NAMES = ('sky', 'road', 'car')
SIZE = (12, 9)                    # width and height


def classes_of(seed, most=3, size=SIZE):
    """A mask's classes, void here and there."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, most, size[::-1], np.uint8)
    classes[0, :3] = Mask.void
    return classes


def write_image(path, size=SIZE, mode='RGB'):
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.effect_noise(size, 50).convert(mode).save(path)


def write_mask(path, values, palette=False, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Picture.fromarray(values)
    if palette:
        picture.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    picture.save(path, **options)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'classes.txt').write_text('\n'.join(NAMES) + '\n')
    for split, count in SPLITS.items():
        for i in range(count):
            write_image(tmp_path / split / 'images' / f'{i}.jpg')
            write_mask(tmp_path / split / 'masks' / f'{i}.png', classes_of(i))
    return tmp_path


def everything(source, fields=None):
    return {name: value.numpy() for name, value in
            source.gather(tf.range(source.num_examples, dtype=tf.int64), fields).items()}


def test_layout(folder):
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob('*'))
    dataset = open_dataset(f'files/{folder}')
    assert str(dataset) == f'files/{folder}: 3 train, 1 validation, 2 test, from {folder}'
    assert dataset.fields == {'image': Image((9, 12, 3)), 'mask': Mask(NAMES, (9, 12))}
    for split in ('train', 'validation', 'test'):
        found = everything(dataset.split(split))
        assert found['image'].shape == (len(found['mask']), 9, 12, 3)
        np.testing.assert_array_equal(found['mask'], [classes_of(i) for i in range(len(found['mask']))])
        assert dataset.split(split).find_unreadable() is None
    part = tf.function(dataset.train.gather)(tf.constant([2, 0], tf.int64), ['mask'])
    assert part['mask'].shape == (2, 9, 12) and (part['mask'][0].numpy() == classes_of(2)).all()
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob('*')) == before
    assert open_dataset(f'files/{folder}').fingerprint == dataset.fingerprint
    write_mask(folder / 'test' / 'masks' / '1.png', classes_of(77))
    assert open_dataset(f'files/{folder}').fingerprint != dataset.fingerprint


def test_a_split_by_hash(folder):
    for name in ('images', 'masks'):
        (folder / 'test' / name).rename(folder / name)
    for i in range(40):
        write_image(folder / 'images' / f'{i:03}.png', mode='RGBA')
        write_mask(folder / 'masks' / f'{i:03}.png', classes_of(i))
    with pytest.raises(UserError, match='must hold images/ and masks/ either itself or in train/. Received: both'):
        open_dataset(f'files/{folder}')
    for split in SPLITS:
        (folder / split).rename(folder / f'{split} before')
    dataset = open_dataset(f'files/{folder}')
    counts = [dataset.split(split).num_examples for split in ('train', 'validation', 'test')]
    assert sum(counts) == 42 and min(counts) > 0


@pytest.mark.parametrize('bits', [1, 2, 4, 8])
@pytest.mark.parametrize('palette', [False, True], ids=['grey', 'palette'])
def test_the_numbers_of_a_palette_count_and_not_its_colours(folder, bits, palette):
    classes = classes_of(0, min(3, 2 ** bits))
    classes[0, :3] = 0 if bits < 8 else 255
    path = folder / 'train' / 'masks' / '0.png'
    if palette:
        write_mask(path, classes, palette=True, bits=bits, transparency=0)
    else:                                  # Pillow writes no grey of 2 or 4 bits
        rows = np.unpackbits(classes[..., None], axis=-1)[..., 8 - bits:].reshape(SIZE[1], -1)
        raw = b''.join(b'\0' + np.packbits(row).tobytes() for row in rows)
        path.write_bytes(masks._grey_head(*SIZE, bits, 0) + chunk(b'IDAT', zlib.compress(raw)) + chunk(b'IEND', b''))
    with Picture.open(path) as file:
        assert file.mode in ({'P'} if palette else {'L', '1'}) and path.read_bytes()[24] == bits
    np.testing.assert_array_equal(everything(open_dataset(f'files/{folder}').train)['mask'][0], classes)


def chunk(kind, content):
    """A chunk of a PNG file."""
    return len(content).to_bytes(4, 'big') + kind + content + zlib.crc32(kind + content).to_bytes(4, 'big')


@pytest.mark.parametrize('lines, values', [
    ('sky\nroad\ncar\n', {0: 0, 1: 1, 2: 2, 3: 255, 255: 255}),
    ('void\nsky\nroad\ncar\n', {0: 255, 1: 0, 2: 1, 3: 2, 4: 255, 255: 255}),
    ('sky\nvoid\nroad\ncar', {0: 0, 1: 255, 2: 1, 3: 2, 4: 255})], ids=['after the last', 'first', 'between'])
def test_void(folder, lines, values):
    (folder / 'classes.txt').write_text(lines)
    for path in folder.glob('*/masks/*'):
        write_mask(path, np.resize(np.uint8(list(values)), SIZE[::-1]))
    dataset = open_dataset(f'files/{folder}')
    assert dataset.fields['mask'].names == NAMES
    np.testing.assert_array_equal(everything(dataset.test)['mask'][1], np.resize(list(values.values()), SIZE[::-1]))


def test_masks_of_several_sizes_come_as_png_files_of_classes(folder):
    (folder / 'classes.txt').write_text('void\nsky\nroad\n')
    sizes = {0: SIZE, 1: (1, 1), 2: (20_000, 3)}
    values = {i: np.random.default_rng(i).integers(0, 4, size[::-1], np.uint8) for i, size in sizes.items()}
    for i, size in sizes.items():
        write_image(folder / 'train' / 'images' / f'{i}.jpg', size)
        write_mask(folder / 'train' / 'masks' / f'{i}.png', values[i], palette=True)
    for split in ('val', 'test'):
        for path in (folder / split / 'masks').iterdir():
            write_mask(path, np.zeros(SIZE[::-1], np.uint8))
    dataset = open_dataset(f'files/{folder}')
    assert dataset.fields == {'image': Image((0, 0, 3)), 'mask': Mask(('sky', 'road'), (0, 0), largest=(9, 20_000))}
    found = everything(dataset.train)
    for i, file in enumerate(found['mask']):
        expected = np.uint8([255, 0, 1, 255])[values[i]]
        np.testing.assert_array_equal(tf.io.decode_png(file)[..., 0], expected)
    assert found['image'][1] == (folder / 'train' / 'images' / '1.jpg').read_bytes()


def test_faults_of_masks(folder):
    path = folder / 'train' / 'masks' / '1.png'
    good = path.read_bytes()

    def check(message):
        with pytest.raises(UserError, match=message) as error:
            open_dataset(f'files/{folder}')
        assert '\n' not in str(error.value)
    for value in (4, 254):
        write_mask(path, np.full(SIZE[::-1], value, np.uint8))
        check(rf'train/masks/1.png must have values of classes \(classes.txt\) or void. Received: {value}')
    write_mask(path, classes_of(1).astype(np.uint16))
    check('masks/1.png must be grey or have a palette, 1 to 8 bits. Received: 16 bits, grey')
    write_mask(path, np.zeros((9, 12, 3), np.uint8))
    check('masks/1.png must be grey or have a palette, 1 to 8 bits. Received: 8 bits, RGB')
    write_mask(path, np.zeros((9, 12, 2), np.uint8))
    check('Received: 8 bits, grey with alpha')
    write_mask(path, np.zeros((12, 9), np.uint8))
    check('masks/1.png must have the size of its image, 12x9. Received: 9x12')
    Picture.fromarray(classes_of(1)).save(path, 'BMP')
    check('masks/1.png must be a PNG file')
    path.write_bytes(good[:-30])
    check('masks/1.png is broken')
    path.unlink()
    check('train/images/1.jpg has no mask: .*/train/masks/1 is missing')
    path.write_bytes(good)
    write_mask(folder / 'test' / 'masks' / '9.png', classes_of(1))
    check('test/masks/9.png has no image: .*/test/images/9 is missing')
    (folder / 'test' / 'masks' / '9.png').unlink()
    write_image(folder / 'train' / 'images' / '1.png')
    check('images/1.png must differ from other files by more than its ending. Received: 1.jpg too')
    (folder / 'train' / 'images' / '1.png').unlink()
    (folder / 'train' / 'images' / '1.jpg').write_bytes(b'hello')
    check('images/1.jpg must be a JPEG, PNG, BMP, GIF or WebP image')
    (folder / 'train' / 'images' / '1.jpg').unlink()
    os.mkfifo(folder / 'train' / 'images' / '1.jpg')
    check('images/1.jpg must be a regular file')


def test_faults_of_classes_and_folders(folder):
    for content in ('', 'sky\n\nroad\n', 'sky\nsky\n', 'void\n', '\n'.join(map(str, range(254)))):
        (folder / 'classes.txt').write_text(content)
        with pytest.raises(UserError, match='classes.txt must have a name of its own for each class, at most 253'):
            open_dataset(f'files/{folder}')
    (folder / 'classes.txt').unlink()
    with pytest.raises(UserError, match='must have classes.txt, with the name of a class per line'):
        open_dataset(f'files/{folder}')
    (folder / 'val' / 'masks').rename(folder / 'val' / 'labels')
    with pytest.raises(UserError, match='/val must have images/ and masks/, as train has'):
        open_dataset(f'files/{folder}')


def test_a_value_that_is_no_class_is_noticed_later_too(folder, monkeypatch):
    """Of very many masks, those that are not checked when the data set is opened."""
    monkeypatch.setattr(masks, 'CHECKED', 1)
    path = folder / 'train' / 'masks' / '2.png'
    write_mask(path, np.full(SIZE[::-1], 7, np.uint8))
    source = open_dataset(f'files/{folder}').train
    source.gather(tf.constant([0, 1], tf.int64))
    with pytest.raises(tf.errors.InvalidArgumentError, match='neither a class nor void'):
        tf.function(source.gather)(tf.constant([0, 2], tf.int64))
    assert source.find_unreadable() == str(path)


@pytest.mark.skipif(not (REAL_DATA / 'camvid').is_dir(), reason='needs the folder camvid')
def test_camvid():
    dataset = open_dataset('camvid', data_dir=str(REAL_DATA))
    assert str(dataset) == f'camvid: 367 train, 101 validation, 233 test, from {REAL_DATA}/camvid'
    assert dataset.fields['image'] == Image((360, 480, 3)) and dataset.fields['mask'].shape == (360, 480)
    assert len(dataset.fields['mask'].names) == 11
    found = dataset.test.gather(tf.range(20, dtype=tf.int64), ['mask'])['mask'].numpy()
    assert set(np.unique(found)) <= {*range(11), 255} and 0.005 < (found == 255).mean() < 0.1
