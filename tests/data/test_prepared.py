import numpy as np
import tensorflow as tf

import data
from data.pipeline import training_slices
from data.prepared import Prepared
from data.source import Subset, Tensors


def test_prepared_batches_are_those_computed_each_time():
    dataset = data.open_dataset('digits', 28, 3)
    assert isinstance(dataset.train, Prepared)
    rows = tf.constant([5, 0, 1346, 5], tf.int64)
    for ready, computed in zip(dataset.train.batch(rows), dataset.features.batch(dataset.train.gather(rows))):
        np.testing.assert_allclose(ready, computed, rtol=1e-6)
        assert ready.dtype == computed.dtype


def test_what_is_large_or_not_in_memory_is_computed_when_asked(monkeypatch):
    from data.prepared import prepare
    features = data.open_dataset('digits').features
    source = Tensors(image=np.zeros([10, 8, 8, 1], np.uint8), label=np.zeros(10, np.int32))
    assert isinstance(prepare(Subset(source, range(5)), features), Prepared)
    monkeypatch.setattr('data.prepared.LIMIT', 10)
    assert prepare(source, features) is source
    batch = next(iter(training_slices(source, features, batch_size=4, seed=0)()))
    assert [t.shape.as_list() for t in batch] == [[4, 8, 8, 1], [4], [4]]


def test_text_is_not_prepared():
    assert not isinstance(data.open_dataset('number_words').train, Prepared)
