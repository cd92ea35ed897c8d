"""Rows: prepared once or each time, the same."""

import numpy as np
import pytest
import tensorflow as tf

import data.rows
from data.pipeline import training_slices
from data.rows import Cached, Mapped
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


def test_large_rows_and_sources_outside_memory_are_prepared_when_asked(monkeypatch):
    dataset, task = opened('number_words', 'translation')
    assert isinstance(task.rows(dataset.train), Mapped)
    dataset, task = opened('digits')
    monkeypatch.setattr(data.rows, 'LIMIT', 10)
    rows = task.rows(dataset.train)
    assert isinstance(rows, Mapped)
    batch = next(iter(training_slices(rows, task.batch, batch_size=4, seed=0)()))
    assert [t.shape.as_list() for t in batch] == [[4, 8, 8, 1], [4], [4]]
