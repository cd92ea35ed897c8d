"""files/FOLDER with real files of all formats; one clear line for each thing that can be wrong with it."""

import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data import open_dataset
from data.pipeline import evaluation_slices, training_slices
from data.sources.folders import split_of_name
from errors import UserError
from tests.opened import opened

FORMATS = ['png', 'jpg', 'bmp', 'gif', 'webp']


def write(path, seed=0, size=None, mode='RGB'):
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.RandomState(seed)
    width, height = size or random.randint(4, 40, 2)
    pixels = random.randint(0, 256, (height, width, 4)).astype(np.uint8)
    Image.fromarray(pixels, 'RGBA').convert(mode).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    for seed in range(80):
        write(tmp_path / 'pets' / ('cat', 'dog')[seed % 2] / f'{seed}.{FORMATS[seed % 5]}', seed)
    return tmp_path / 'pets'


def split_names(dataset, split):
    paths = dataset.split(split)._paths.numpy()
    return {path.decode().rsplit('/pets/')[1] for path in paths}


def test_own_split(folder):
    for split, count in (('train', 6), ('val', 3), ('test', 2)):
        for seed in range(count):
            write(folder / 'own' / split / f'class {seed % 2}' / f'{seed}.png', seed)
    dataset = open_dataset(f'files/{folder}/own')
    assert str(dataset) == f'files/{folder}/own: 6 train, 3 validation, 2 test, from {folder}/own'
    assert dataset.fields['label'].names == ('class 0', 'class 1')
    assert dataset.validation.gather(tf.constant([0, 1, 2], tf.int64))['label'].numpy().tolist() == [0, 0, 1]


def test_split_by_hash_is_kept_when_files_are_added(folder):
    before = open_dataset(f'files/{folder}')
    names = {split: split_names(before, split) for split in ('train', 'validation', 'test')}
    assert sum(map(len, names.values())) == len(set.union(*names.values())) == 80
    write(folder / 'cat' / 'new.png')
    after = open_dataset(f'files/{folder}')
    assert all(names[split] <= split_names(after, split) for split in names)
    assert before.fingerprint != after.fingerprint


def test_a_missing_split_is_taken_from_train(folder):
    (folder / 'train').mkdir()
    for name in ('cat', 'dog'):
        (folder / name).rename(folder / 'train' / name)
    for name in ('cat', 'dog'):
        write(folder / 'test' / name / 'a.png')
    dataset = open_dataset(f'files/{folder}')
    validation = split_names(dataset, 'validation')
    assert dataset.test.num_examples == 2 and dataset.train.num_examples + len(validation) == 80
    assert all(split_of_name(name) == 'validation' for name in validation)


def test_a_name_is_in_the_same_split_for_ever():
    """Else a run of a later version would be tested on what an earlier one was trained on."""
    splits = [split_of_name(f'cat/{i}.png') for i in range(40)]
    assert [i for i, split in enumerate(splits) if split == 'validation'] == [2, 16, 18, 26]
    assert [i for i, split in enumerate(splits) if split == 'test'] == [5, 7, 15, 28, 36, 37]


def test_train_may_be_a_class(folder):
    (folder / 'cat').rename(folder / 'train')
    assert open_dataset(f'files/{folder}').fields['label'].names == ('dog', 'train')


@pytest.mark.parametrize('channels', [0, 1, 3])
def test_batches_hold_the_files_pixels(folder, channels):
    dataset, task = opened('files/pets', image_size=12, channels=channels, data_dir=str(folder.parent))
    count = dataset.train.num_examples
    x, y, *_ = next(iter(evaluation_slices(task.rows(dataset.train), task.batch, batch_size=count)()))
    assert x.shape == (count, 12, 12, channels or 3)
    for i in range(8):
        path = dataset.train._paths[i].numpy().decode()
        assert ('/dog/' in path) == bool(y[i])
        if channels != 1 and not path.endswith(('jpg', 'webp')):      # decoders differ
            with Image.open(path) as file:
                image = np.array(file.convert('RGB'), np.float32)
            image = tf.image.resize(image, (12, 12), antialias=True)
            np.testing.assert_allclose(x[i], image / 255., atol=1e-5)


def test_training_batches(folder):
    dataset, task = opened(f'files/{folder}', image_size=12, augment='flip')
    batches = training_slices(task.rows(dataset.train, True), task.batch, batch_size=8, seed=0)()
    x, y, weights = next(iter(batches))
    assert (x.shape, y.shape, float(tf.reduce_sum(weights))) == ((8, 12, 12, 3), (8,), 8.)
    assert 0 <= float(tf.reduce_min(x)) < float(tf.reduce_max(x)) <= 1


@pytest.mark.parametrize('mode', ['RGBA', 'L', 'LA', 'P', '1'])
def test_other_png_modes(folder, mode):
    path = write(folder / 'cat' / f'mode{mode}.png', mode=mode)
    dataset, task = opened(f'files/{folder}', image_size=12)
    sources = (dataset.train, dataset.validation, dataset.test)
    source, index = next((s, i) for s in sources for i, p in enumerate(s._paths.numpy()) if p.decode() == str(path))
    assert task.rows(source).gather(tf.constant([index], tf.int64))['x'].shape == (1, 12, 12, 3)


def test_hidden_files_and_files_beside_the_classes_are_left_out(folder):
    (folder / 'README.txt').write_text('about')
    (folder / 'cat' / '.DS_Store').write_text('x')
    assert sum(open_dataset(f'files/{folder}').split(s).num_examples
               for s in ('train', 'validation', 'test')) == 80


def test_a_broken_file_is_found(folder):
    dataset, task = opened(f'files/{folder}', image_size=8)
    source = dataset.train
    assert source.find_unreadable() is None
    path = source._paths[5].numpy().decode()
    with open(path, 'rb') as file:
        start = file.read(12)
    with open(path, 'wb') as file:
        file.write(start)
    with pytest.raises(tf.errors.InvalidArgumentError):
        task.rows(source).gather(tf.constant([5], tf.int64))
    assert source.find_unreadable() == path
    (folder.parent / 'gone').mkdir()
    folder.rename(folder.parent / 'gone' / 'pets')
    assert source.find_unreadable() == source._paths[0].numpy().decode()


@pytest.mark.parametrize('name, content', [('empty.png', b''), ('text.jpg', b'hello, world'), ('old.tiff', b'II*\0'),
                                           ('sound.webp', b'RIFF\x24\0\0\0WAVEfmt ')])
def test_what_is_no_image_is_named(folder, name, content):
    (folder / 'dog' / name).write_bytes(content)
    with pytest.raises(UserError, match=f'1 of 81 files are not JPEG, PNG, BMP, GIF or WebP images; .* dog/{name}'):
        open_dataset(f'files/{folder}')


def test_errors(folder, tmp_path):
    with pytest.raises(UserError, match='`image_size` is needed for dataset=files/'):
        opened(f'files/{folder}')
    for path in ('', 'nowhere', str(folder / 'cat' / '0.png')):
        with pytest.raises(UserError, match='needs a folder that exists. Received: dataset=files/'):
            open_dataset(f'files/{path}', data_dir=str(tmp_path))
    (tmp_path / 'hollow' / 'cat').mkdir(parents=True)
    with pytest.raises(UserError, match='holds no images: put them into one sub-folder per class'):
        open_dataset(f'files/{tmp_path}/hollow')
    write(tmp_path / 'hollow' / 'cat' / 'a.png')
    with pytest.raises(UserError, match='must have at least two classes.* only \'cat\''):
        open_dataset(f'files/{tmp_path}/hollow')
    for split in ('train', 'test'):
        for name in ('cat', 'dog'):
            write(tmp_path / 'few' / split / name / 'c.png')
    with pytest.raises(UserError, match='gives an empty split: validation .received 2 train, 0 validation, 2 test'):
        open_dataset(f'files/{tmp_path}/few')
    for name in ('cat', 'emu'):
        write(tmp_path / 'few' / 'validation' / name / 'c.png')
    with pytest.raises(UserError, match='validation has classes that train has not: emu'):
        open_dataset(f'files/{tmp_path}/few')


def test_names_need_not_be_utf_8(folder):
    write(folder / 'caf\udce9' / 'train \udcff.png', size=(9, 9))      # Latin-1
    for seed in range(20):
        write(folder / 'caf\udce9' / f'{seed}.png', seed)
    dataset, task = opened(f'files/{folder}', image_size=8)
    assert dataset.fields['label'].names == ('caf\N{REPLACEMENT CHARACTER}', 'cat', 'dog')
    sources = (dataset.train, dataset.validation, dataset.test)
    source, index = next((source, i) for source in sources for i, path in enumerate(source._paths.numpy())
                         if path.endswith(b'\xff.png'))
    rows = task.rows(source).gather(tf.constant([index], tf.int64))
    assert (rows['x'].shape, rows['y'].numpy().tolist()) == ((1, 8, 8, 3), [0])
    assert task.decode(tf.constant([[2., 1., 0.]]))['label'].numpy()[0].decode() == dataset.fields['label'].names[0]
    (folder / 'caf\udce9' / 'train \udcff.png').write_bytes(b'\x89PNG\r\n\x1a\n')
    assert source.find_unreadable() == str(folder / 'caf\udce9' / 'train \udcff.png')


def test_a_pipe_in_a_folder_is_refused(folder):
    os.mkfifo(folder / 'dog' / 'pipe.png')                             # opening it waits for a writer
    with pytest.raises(UserError, match='must hold regular files only. Received: dog/pipe.png, a pipe'):
        open_dataset(f'files/{folder}')
