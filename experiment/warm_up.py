"""Warm-up requests inside a SavedModel: TensorFlow Serving answers them before it takes requests, so that the first of
those is not the slow one. https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

import tensorflow as tf

FILE = 'assets.extra/tf_serving_warmup_requests'


def write(folder, signatures, inputs):
    """Writes one request per signature into a SavedModel's folder.

    Args:
        signatures: {name: (function, [tf.TensorSpec])}, as Task.serving gives them.
        inputs: {name: [a tensor per spec]}, as Task.served_inputs gives them.
    """
    file = folder / FILE
    file.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for name, (_, specs) in signatures.items():
            writer.write(_prediction_log(name, {spec.name: value for spec, value in
                                                zip(specs, inputs[name], strict=True)}))


def _prediction_log(signature, inputs):
    """A tensorflow.serving.PredictionLog. Its classes are in a package of their own, tensorflow-serving-api, which a
    plain install does without: all that is needed of it are messages within messages, whose encoding is _field."""
    model_spec = _field(3, signature.encode())                                  # ModelSpec.signature_name
    request = _field(1, model_spec) + b''.join(                                 # PredictRequest.model_spec
        _field(2, _field(1, name.encode()) + _field(2, tf.make_tensor_proto(value).SerializeToString()))
        for name, value in inputs.items())                                      # PredictRequest.inputs, a map
    return _field(6, _field(1, request))                                        # .predict_log, PredictLog.request


def _field(number, content):
    """A field of bytes in protobuf's encoding: its number and kind, its length seven bits at a time, its content."""
    length, size = [], len(content)
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content
