"""Rows: prepared once or each time, the same."""

import numpy as np
import pytest
import tensorflow as tf

import data.rows
from data.pipeline import training_slices
from data.rows import Cached, Mapped
from errors import RunError
from experiment.parts import data_errors
from tests.opened import opened


@pytest.mark.parametrize('name, task, kept', [('digits', 'classification', {'image_size': 28, 'channels': 3}),
                                              ('diabetes', 'regression', {})])
def test_cached_rows_are_those_prepared_each_time(name, task, kept):
    dataset, task = opened(name, task, **kept)
    cached = task.rows(dataset.train)
    assert isinstance(cached, Cached)
    mapped = Mapped(dataset.train, task.prepare, list(task.roles.values()))
    indices = tf.constant([5, 0, dataset.train.num_examples - 1, 5], tf.int64)
    for name, value in mapped.gather(indices).items():
        np.testing.assert_array_equal(cached.gather(indices)[name], value)
        assert cached.gather(indices)[name].dtype == value.dtype
    assert cached.fingerprint == mapped.fingerprint == dataset.train.fingerprint


@pytest.fixture
def folder(tmp_path):
    """75 and 4 JPEGs, more than are decoded at a time and no multiple of it."""
    pixels = np.random.RandomState(0).randint(0, 256, (79, 20, 30, 3)).astype(np.uint8)
    for i in range(79):
        split = 'train' if i < 75 else ('validation', 'test')[(i - 75) // 2]
        path = tmp_path / split / 'ab'[i % 2] / f'{i}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tf.io.encode_jpeg(pixels[i]).numpy())
    return tmp_path


def batches_of(rows, task):
    return [batch for batch in training_slices(rows, task.batch, batch_size=8, seed=0)().take(12)]


def test_small_folders_of_images_are_decoded_once_to_the_same_bits(folder):
    dataset, task = opened(f'files/{folder}', image_size=12, augment='flip')
    rows = task.rows(dataset.train)
    assert isinstance(rows, Cached) and rows.num_examples == 75
    mapped = Mapped(dataset.train, task.prepare, list(task.roles.values()))
    expected = batches_of(mapped, task)
    for path in folder.rglob('*.jpg'):
        path.unlink()
    for batch, other in zip(batches_of(rows, task), expected, strict=True):
        for array, wanted in zip(batch, other, strict=True):
            np.testing.assert_array_equal(array, wanted)


def test_large_folders_are_decoded_in_each_step(folder, monkeypatch):
    monkeypatch.setattr(data.rows, 'LIMIT', 75 * (12 * 12 * 3 * 4 + 4) - 1)
    dataset, task = opened(f'files/{folder}', image_size=12)
    assert isinstance(task.rows(dataset.train), Mapped)
    monkeypatch.setattr(data.rows, 'LIMIT', data.rows.LIMIT + 1)
    assert isinstance(task.rows(dataset.train), Cached)


def test_a_broken_file_is_found_while_a_folder_is_decoded(folder):
    dataset, task = opened(f'files/{folder}', image_size=12)
    broken = next((folder / 'train').rglob('40.jpg'))
    broken.write_bytes(broken.read_bytes()[:20])
    with pytest.raises(tf.errors.InvalidArgumentError):
        task.rows(dataset.train)
    with pytest.raises(RunError, match='train/a/40.jpg cannot be read as an image'), data_errors(dataset):
        task.rows(dataset.train)


def test_large_rows_and_sources_outside_memory_are_prepared_when_asked(monkeypatch):
    dataset, task = opened('number_words', 'translation')
    assert isinstance(task.rows(dataset.train), Mapped)
    dataset, task = opened('digits')
    monkeypatch.setattr(data.rows, 'LIMIT', 10)
    rows = task.rows(dataset.train)
    assert isinstance(rows, Mapped)
    batch = next(iter(training_slices(rows, task.batch, batch_size=4, seed=0)()))
    assert [t.shape.as_list() for t in batch] == [[4, 8, 8, 1], [4], [4]]
