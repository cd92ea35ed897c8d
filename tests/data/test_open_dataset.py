"""Datasets by name, Fashion-MNIST's files, TensorFlow Datasets without a network, and the messages."""

import gzip
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image as Picture

import data
from data import open_dataset
from data.dataset import Boxes, Image, Label, Mask, Number, Vector
from data.pipeline import training_slices
from data.sources import fashion_mnist, records
from data.sources.number_words import chinese, english
from data.sources.tfds import open_tfds
from errors import UserError
from tests.opened import opened, task_of

needs_fashion = pytest.mark.skipif(not Path(fashion_mnist.DEBIAN).is_dir(), reason='needs dataset-fashion-mnist')


def everything(source):
    return source.gather(tf.range(source.num_examples, dtype=tf.int64))


@needs_fashion
def test_fashion_mnist():
    dataset = open_dataset('fashion_mnist')
    assert str(dataset) == f'fashion_mnist: 55,000 train, 5,000 validation, 10,000 test, from {fashion_mnist.DEBIAN}'
    labels = [everything(dataset.split(split))['label'].numpy() for split in ('train', 'validation', 'test')]
    assert np.bincount(np.concatenate(labels[:2])).tolist() == [6000] * 10 == (6 * np.bincount(labels[2])).tolist()
    assert task_of('classification', dataset).sizes == {'input_shape': (28, 28, 1), 'outputs': 10}


def write_idx(path, array):
    sizes = b''.join(size.to_bytes(4, 'big') for size in array.shape)
    path.write_bytes(gzip.compress(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()))


@pytest.fixture
def tiny_fashion(tmp_path, monkeypatch):
    """Six images in the folder fashion-mnist below data_dir."""
    monkeypatch.setattr(fashion_mnist, 'DEBIAN', str(tmp_path / 'none'))
    monkeypatch.setattr(fashion_mnist, 'VALIDATION', 1)
    folder = tmp_path / 'fashion-mnist'
    folder.mkdir()
    for name in fashion_mnist.FILES:
        shape = (6, 28, 28) if 'images' in name else (6,)
        write_idx(folder / name, (np.arange(np.prod(shape)) % 10).astype(np.uint8).reshape(shape))
    return folder


def test_fashion_mnist_below_data_dir(tiny_fashion):
    dataset, task = opened('fashion_mnist', image_size=32, channels=3, data_dir=str(tiny_fashion.parent))
    assert str(dataset) == f'fashion_mnist: 5 train, 1 validation, 6 test, from {tiny_fashion}'
    x, _, _ = next(iter(training_slices(task.rows(dataset.train), task.batch, batch_size=4, seed=0)()))
    assert x.shape == (4, 32, 32, 3)


@pytest.mark.parametrize('content', [b'', b'plain', gzip.compress(b'\0\0\x08\x01\0\0\0\x09abc'), gzip.compress(b'ab')],
                         ids=['empty', 'not gzip', 'other size', 'too short'])     # gzip's own bytes hold the time
def test_a_damaged_idx_file_is_named(tiny_fashion, content):
    (tiny_fashion / fashion_mnist.FILES[1]).write_bytes(content)
    with pytest.raises(UserError, match=f'{fashion_mnist.FILES[1]} is damaged .*: delete or replace it'):
        open_dataset('fashion_mnist', data_dir=str(tiny_fashion.parent))


def check_value(kind, values, size):
    """Values of a batch of a field, as data/dataset.py describes its kind."""
    values = values.numpy()
    assert len(values) == size
    if isinstance(kind, Image) and not kind.encoded:
        assert values.dtype == np.uint8 and values.shape[1:] == kind.shape
    elif isinstance(kind, Boxes):
        assert values.dtype == np.float32 and values.shape[1:] == (kind.most, 6)
        is_box = values[..., 4] >= 0
        boxes = values[is_box]
        assert (boxes[:, 2] > boxes[:, 0]).all() and (boxes[:, 3] > boxes[:, 1]).all() and (boxes[:, :2] >= 0).all()
        assert set(boxes[:, 4]) <= set(range(len(kind.names))) and set(boxes[:, 5]) <= {0, 1}
        assert (values[~is_box] == kind.PADDING).all() and (np.diff(is_box.astype(int)) <= 0).all()
    elif isinstance(kind, Mask):
        assert values.dtype == np.uint8 and values.shape[1:] == kind.shape
        assert set(np.unique(values)) <= {*range(len(kind.names)), kind.void}
    elif isinstance(kind, Label):
        assert values.ndim == 1 and values.min() >= 0 and values.max() < len(kind.names)
    elif isinstance(kind, Vector):
        assert values.dtype == np.float32 and values.shape[1:] == (kind.size,) and np.isfinite(values).all()
    elif isinstance(kind, Number):
        assert values.dtype == np.float32 and values.ndim == 1 and np.isfinite(values).all()
    else:
        assert all(value.decode() for value in values)


@pytest.mark.parametrize('name', data.DATASETS)
def test_a_dataset_has_three_splits_of_the_fields_it_names(name):
    try:
        dataset = open_dataset(name)
    except UserError as error:
        pytest.skip(str(error))                   # one that is not on this machine
    assert dataset.name == name and len({dataset.fingerprint, open_dataset(name).fingerprint}) == 1
    for split in ('train', 'validation', 'test'):
        source = dataset.split(split)
        size = min(source.num_examples, 100)
        examples = source.gather(tf.range(size, dtype=tf.int64))
        assert size and set(examples) == set(dataset.fields)
        for key, kind in dataset.fields.items():
            check_value(kind, examples[key], size)


def test_unknown_names():
    known = (f'one of {", ".join(data.DATASETS)}, gettext/LANG, files/FOLDER, a folder of `data_dir` '
             '.or CONGRUENT_DATA., or a name of TensorFlow Datasets')
    for name, hint in (('digit', 'Did you mean digits'), ('cifar_10', 'Did you mean cifar10'), ('', ''), ('a b', '')):
        with pytest.raises(UserError, match=f'{known}.*dataset={name!r} .*has none of that name.{{0,3}}{hint}'):
            open_dataset(name)


@pytest.mark.parametrize('name', ['digits', 'fashion_mnist', 'gettext/de', 'files/x', 'sst2'])
def test_a_data_dir_that_is_no_folder(name, tmp_path, monkeypatch):
    (tmp_path / 'file').touch()
    for path in (tmp_path / 'nothing', tmp_path / 'file'):
        with pytest.raises(UserError, match=f"`data_dir` .* must be a folder that exists. Received: data_dir='{path}'"):
            open_dataset(name, data_dir=str(path))
    monkeypatch.setenv(data.VARIABLE, str(tmp_path / 'nothing'))
    with pytest.raises(UserError, match='CONGRUENT_DATA. must be a folder'):
        open_dataset(name)


# An empty module is what the package leaves where it is built for another protobuf.
@pytest.mark.parametrize('module', [None, types.ModuleType('tensorflow_datasets')], ids=['missing', 'empty'])
def test_tensorflow_datasets_cannot_be_imported(monkeypatch, module):
    monkeypatch.setitem(sys.modules, 'tensorflow_datasets', module)
    with pytest.raises(UserError, match=r'cannot be imported.*pip install -e "\.\[tfds\]".*Did you mean digits'):
        open_dataset('digit')


def test_what_tensorflow_datasets_has_but_we_cannot_use(tmp_path):
    with pytest.raises(UserError, match='configuration of cifar10 .*dataset=\'cifar10/foo\' .configurations: none'):
        open_dataset('cifar10/foo', data_dir=str(tmp_path))


def test_a_translation_set_of_tensorflow_datasets(tmp_path):
    import tensorflow_datasets as tfds

    class TinyTranslation(tfds.core.GeneratorBasedBuilder):
        """A builder of TensorFlow Datasets as those of wmt14_translate and ted_hrlr_translate."""

        VERSION = tfds.core.Version('1.0.0')

        def _info(self):
            features = tfds.features.Translation(languages=['en', 'zh'])
            return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=('zh', 'en'))

        def _split_generators(self, _):
            return {'train': self._generate_examples(0, 300), 'test': self._generate_examples(300, 340)}

        def _generate_examples(self, first, last):
            yield from ((n, {'en': english(n), 'zh': chinese(n)}) for n in range(first, last))

    dataset, task = opened('tiny_translation', 'translation', data_dir=str(tmp_path), vocabulary_size=310,
                           max_length=30)
    assert str(dataset).startswith('tiny_translation: 270 train, 30 validation, 40 test, from TensorFlow Datasets in')
    examples = [tf.function(everything)(dataset.split(split)) for split in ('train', 'validation', 'test')]
    found = [(source.decode(), target.decode()) for part in examples
             for source, target in zip(part['source'].numpy(), part['target'].numpy())]
    assert sorted(found) == sorted((chinese(n), english(n)) for n in range(340))
    _, y, _ = next(iter(training_slices(task.rows(dataset.train), task.batch, batch_size=8, seed=0)()))
    assert all(text.decode() in [english(n) for n in range(300)] for text in task.decode(y).numpy())
    assert task.language == 'en' and len(task.tokenizer_files['subwords.model']) > 1000


def test_numbers_of_tensorflow_datasets_are_vectors_and_targets(tmp_path):
    import tensorflow_datasets as tfds

    class TinyNumbers(tfds.core.GeneratorBasedBuilder):
        """A builder of TensorFlow Datasets of a regression."""

        VERSION = tfds.core.Version('1.0.0')

        def _info(self):
            features = {'inputs': tfds.features.Tensor(shape=(3,), dtype=np.float32), 'target': np.int32,
                        'share': tfds.features.Scalar(np.float64),
                        'table': tfds.features.Tensor(shape=(2, 2), dtype=np.int64)}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, _):
            return {'train': self._generate_examples()}

        def _generate_examples(self):
            yield from ((n, {'inputs': np.float32([n, n / 2, 0]), 'target': n, 'share': n / 4, 'table': [[n] * 2] * 2})
                        for n in range(50))

    dataset, task = opened('tiny_numbers', 'regression', data_dir=str(tmp_path))
    assert dataset.fields == {'inputs': Vector(3), 'target': Number(), 'share': Number()}
    for split in ('train', 'validation', 'test'):
        check = everything(dataset.split(split))
        np.testing.assert_array_equal(check['inputs'][:, 0], check['target'])
        np.testing.assert_array_equal(check['share'] * 4, check['target'])
    x, y, _ = next(iter(training_slices(task.rows(dataset.train), task.batch, batch_size=4, seed=0)()))
    assert x.shape == (4, 3) and y.dtype == tf.float32


def test_image_files_of_tensorflow_datasets_are_upright_and_may_be_animated(tmp_path):
    """It stores files as they are. All of these show the same picture, of 12 x 12 or 16 x 12 pixels."""
    import tensorflow_datasets as tfds

    def files(picture):
        exif = Picture.Exif()
        exif[0x112] = 6                          # to be turned clockwise
        lying, turned = picture.transpose(Picture.ROTATE_90), picture.rotate(180)
        for name, image, options in (('a.png', picture, {}), ('b.webp', picture, {'lossless': True}),
                                     ('c.webp', picture, {'lossless': True, 'save_all': True,
                                                          'append_images': [turned]}),
                                     ('d.jpg', lying, {'exif': exif, 'quality': 100, 'subsampling': 0})):
            path = tmp_path / f'{picture.width} {name}'
            image.save(path, **options)
            yield path

    class SquareImages(tfds.core.GeneratorBasedBuilder):
        """A builder of TensorFlow Datasets whose images have one shape."""

        VERSION = tfds.core.Version('1.0.0')
        SHAPE = (12, 12, 3)

        def _info(self):
            features = {'image': tfds.features.Image(shape=self.SHAPE),
                        'number': tfds.features.ClassLabel(num_classes=4)}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, _):
            ramp = np.linspace(0, 250, np.prod(self.SHAPE)).astype(np.uint8).reshape(self.SHAPE)
            return {'train': self._generate_examples(files(Picture.fromarray(ramp)))}

        def _generate_examples(self, paths):
            yield from ((i, {'image': str(path), 'number': i}) for i, path in enumerate(paths))

    class WideImages(SquareImages):
        """Theirs is another width."""

        SHAPE = (12, 16, 3)

    for name, shape in (('square_images', SquareImages.SHAPE), ('wide_images', WideImages.SHAPE)):
        dataset = open_dataset(name, data_dir=str(tmp_path))
        assert dataset.fields['image'] == Image(shape)
        read = [tf.function(everything)(dataset.split(split)) for split in ('train', 'validation', 'test')]
        images = {int(i): image for part in read for i, image in zip(part['number'], part['image'].numpy())}
        assert len(images) == 4 and all(image.dtype == np.uint8 for image in images.values())
        for i in (1, 2):
            np.testing.assert_array_equal(images[i], images[0])
        np.testing.assert_allclose(images[3].astype(int), images[0], atol=20)      # a JPEG's pixels are other ones


def test_a_failed_download_is_one_line_and_can_be_tried_again(tmp_path, monkeypatch, capfd):
    import requests

    def no_network(*_, **__):
        raise requests.exceptions.ConnectionError("HTTPSConnectionPool(host='example.org', port=443): Max retries")
    monkeypatch.setattr(requests.Session, 'get', no_network)
    monkeypatch.setattr(fashion_mnist, 'DEBIAN', str(tmp_path / 'none'))
    for _ in range(2):
        with pytest.raises(UserError, match='could not be had: .*cifar10 is no folder of data; looked in .*cifar10.* '
                                            'and tried to prepare it there: ConnectionError: no connection to '
                                            'example.org. These need no network: '):
            open_dataset('cifar10', data_dir=str(tmp_path))
        assert not list((tmp_path / 'cifar10').iterdir())
    with pytest.raises(UserError, match='looked for train-images-idx3-ubyte.gz and its three .*none; looked'):
        open_dataset('fashion_mnist', data_dir=str(tmp_path))
    assert capfd.readouterr().out == ''


@pytest.mark.parametrize('limit', [2 ** 30, 0])
def test_records_by_index(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(records, 'IN_MEMORY', limit)
    contents, paths = [b'%d' % i * (1 + i % 7) for i in range(50)], [str(tmp_path / name) for name in 'ab']
    for path, part in zip(paths, (contents[:20], contents[20:])):
        with tf.io.TFRecordWriter(path) as writer:
            for content in part:
                writer.write(content)
    count, read = records.open_records(paths)
    rows = [0, 49, 20, 19, 7, 7, 13]
    assert count == 50
    assert tf.function(read)(tf.constant(rows, tf.int64)).numpy().tolist() == [contents[row] for row in rows]


def test_a_record_file_that_is_cut_short(tmp_path, monkeypatch):
    monkeypatch.setattr(records, 'IN_MEMORY', 0)
    with tf.io.TFRecordWriter(str(tmp_path / 'a')) as writer:
        writer.write(b'content')
    (tmp_path / 'a').write_bytes((tmp_path / 'a').read_bytes()[:-2])
    with pytest.raises(ValueError, match='a is cut short'):
        records.open_records([str(tmp_path / 'a')])


EXIT = """
import sys
from data.pipeline import training_slices
from data.sources.tfds import open_tfds
dataset = open_tfds('fashion_mnist', data_dir=sys.argv[1])
def batch(rows, draws, training):
    return rows['image'], rows['label'], 1.
iterator = iter(training_slices(dataset.train, batch, batch_size=64, seed=0)())
print(next(iterator)[0].shape)
"""


@needs_fashion
@pytest.mark.slow
def test_tensorflow_datasets_prepares_the_same_fashion_mnist(tmp_path, monkeypatch):
    """The real builder, from Debian's files in its download cache; then a process that ends while a batch is made."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import resource
    cache = tmp_path / 'downloads' / 'fashion_mnist'
    cache.mkdir(parents=True)
    for url, info in tfds.builder('fashion_mnist', data_dir=str(tmp_path)).url_infos.items():
        name = resource.get_dl_fname(url, info.checksum)
        shutil.copy(Path(fashion_mnist.DEBIAN) / url.rsplit('/', 1)[1], cache / name)
        (cache / f'{name}.INFO').write_text('{}')
    prepared, own = open_tfds('fashion_mnist', str(tmp_path)), open_dataset('fashion_mnist')
    assert [prepared.split(s).num_examples for s in ('train', 'validation', 'test')] == [55_000, 5_000, 10_000]
    assert prepared.fields == own.fields
    assert pairs(prepared.train, prepared.validation) == pairs(own.train, own.validation)
    assert pairs(prepared.test) == pairs(own.test)
    monkeypatch.setattr(records, 'IN_MEMORY', 0)
    from_disk, rows = open_tfds('fashion_mnist', str(tmp_path)), tf.range(100, dtype=tf.int64)
    np.testing.assert_array_equal(from_disk.test.gather(rows)['image'], prepared.test.gather(rows)['image'])
    ran = subprocess.run([sys.executable, '-c', EXIT, str(tmp_path)], capture_output=True, text=True, timeout=60,
                         cwd=Path(data.__file__).parent.parent)
    assert (ran.returncode, ran.stdout) == (0, '(64, 28, 28, 1)\n'), ran.stderr


def pairs(*sources):
    """The multiset of (image, label), in an order that does not depend on theirs."""
    examples = [tf.function(everything)(source) for source in sources]
    return sorted((image.tobytes(), int(label)) for part in examples
                  for image, label in zip(part['image'].numpy(), part['label'].numpy()))


def test_a_folder_of_ones_own_comes_before_tensorflow_datasets(tmp_path, monkeypatch):
    """Also under the name of a set that the project brings, where its own files are nowhere."""
    monkeypatch.setattr(fashion_mnist, 'DEBIAN', str(tmp_path / 'nowhere'))
    for name in ('bag', 'coat'):
        (tmp_path / 'fashion_mnist' / name).mkdir(parents=True)
        for i in range(30):
            Picture.new('L', (8, 8), i).save(tmp_path / 'fashion_mnist' / name / f'{i}.png')
    dataset = open_dataset('fashion_mnist', data_dir=str(tmp_path))
    assert dataset.fields['label'].names == ('bag', 'coat') and dataset.origin == str(tmp_path / 'fashion_mnist')
