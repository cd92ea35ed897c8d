"""The warm-up requests of an export, read as TensorFlow Serving reads them: parsed by its own messages, answered."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.unknown_fields import UnknownFieldSet
from tensorflow_serving.apis import prediction_log_pb2

from errors import RunError
from experiment import export, warm_up
from tests.model_server import Servable
from tests.tasks.cases import CASES, case, marked

FAST = ('images', 'vectors')


def requests(folder):
    """The PredictRequests of an export; nothing else may be in its file."""
    logs = [prediction_log_pb2.PredictionLog.FromString(record.numpy())
            for record in tf.data.TFRecordDataset(str(folder / warm_up.FILE))]
    for log in logs:
        assert log.WhichOneof('log_type') == 'predict_log' and log.predict_log.HasField('request')
        for message in (log, log.predict_log, log.predict_log.request):
            assert not len(UnknownFieldSet(message))
    return [log.predict_log.request for log in logs]


@pytest.mark.parametrize('name', [marked(name, name in FAST) for name in CASES])
def test_each_signature_has_a_request_that_a_session_answers_as_the_model(name, tmp_path):
    keras.utils.set_random_seed(0)
    dataset, task, model = case(name)
    folder = tmp_path / '1'
    export.write_checked(folder, model, model, dataset, task)
    servable, asked = Servable(folder), requests(folder)
    signatures = task.serving(model)
    assert [request.model_spec.signature_name for request in asked] == list(signatures)
    first = task.served_inputs(dataset.test.gather(tf.range(1, dtype=tf.int64)))
    for request in asked:
        name = request.model_spec.signature_name
        function, specs = signatures[name]
        assert set(request.inputs) == {spec.name for spec in specs}
        for spec, value in zip(specs, first[name], strict=True):      # a real example, alone
            assert np.array_equal(tf.make_ndarray(request.inputs[spec.name]), value.numpy()) and len(value) == 1
        response = servable.predict(request)
        for output, value in function(*first[name]).items():
            theirs = tf.make_ndarray(response.outputs[output])
            if value.dtype.is_floating:
                np.testing.assert_allclose(theirs, value, atol=1e-5)
            else:
                assert np.array_equal(theirs, value.numpy()), output


@pytest.mark.parametrize('size', [0, 1, 127, 128, 300, 16_383, 16_384, 3_000_000])
def test_a_text_of_any_length_is_encoded(size):
    """Lengths are written seven bits at a time."""
    log = prediction_log_pb2.PredictionLog.FromString(
        warm_up._prediction_log('encoded', {'image_bytes': tf.constant([b'x' * size])}))
    assert tf.make_ndarray(log.predict_log.request.inputs['image_bytes']).tolist() == [b'x' * size]


def test_warm_up_requests_that_cannot_be_written_are_one_line(tmp_path, monkeypatch):
    dataset, task, model = case('vectors')
    monkeypatch.setattr(warm_up, 'FILE', 'none/of/these/requests')      # its folder is not made: no such directory
    with pytest.raises(RunError, match=f'the SavedModel could not be written to {tmp_path / "1"}: .*No such file'):
        export.write_checked(tmp_path / '1', model, model, dataset, task)
    assert not list(tmp_path.iterdir())
