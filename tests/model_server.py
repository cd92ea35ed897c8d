"""What TensorFlow Serving does with a request, over HTTP and gRPC, as its documents and source say: no package has the
server itself. The SavedModel is run by a Session, as there; the messages of gRPC are the server's own.
"""

import base64
import concurrent.futures
import contextlib
import http.server
import json
import re
import threading

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


class Servable:
    """One version of a model. A request that the server refuses raises ValueError."""

    def __init__(self, folder):
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            self.signatures = tf.compat.v1.saved_model.loader.load(self._session, ['serve'], str(folder)).signature_def

    def run(self, name, inputs):
        """{input: array} -> {output: array}"""
        if name not in self.signatures:
            raise ValueError(f'Serving signature key "{name}" not found.')
        signature = self.signatures[name]
        if set(inputs) != set(signature.inputs):
            raise ValueError(f'input size does not match signature: {sorted(inputs)}, {sorted(signature.inputs)}')
        for key, value in inputs.items():
            if tf.as_dtype(signature.inputs[key].dtype) != tf.as_dtype(value.dtype):
                raise ValueError(f'{key} is {value.dtype}')
        try:
            return self._session.run({key: tensor.name for key, tensor in signature.outputs.items()},
                                     {signature.inputs[key].name: value for key, value in inputs.items()})
        except tf.errors.OpError as error:
            raise ValueError(error.message) from None

    def predict(self, request):
        """PredictRequest -> PredictResponse"""
        outputs = self.run(request.model_spec.signature_name or 'serving_default',
                           {name: tf.make_ndarray(value) for name, value in request.inputs.items()})
        response = predict_pb2.PredictResponse()
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response

    def rest(self, body):
        """The JSON of a request -> what is answered in JSON."""
        request = json.loads(body)
        name = request.get('signature_name', 'serving_default')
        if name not in self.signatures:
            raise ValueError(f'Serving signature key "{name}" not found.')
        types = {key: tf.as_dtype(tensor.dtype) for key, tensor in self.signatures[name].inputs.items()}
        layouts = [key for key in ('instances', 'inputs') if key in request]
        if len(layouts) != 1:
            raise ValueError("Not formatted correctly, expecting one of 'inputs' or 'instances'")
        layout = layouts[0]
        columns = request[layout] if layout == 'inputs' else _columns(request['instances'])
        if not _is_object(columns):
            (only,) = types
            columns = {only: columns}
        if set(columns) != set(types):
            raise ValueError(f'JSON object: must have the named inputs {sorted(types)}. Received: {sorted(columns)}')
        outputs = self.run(name, {key: _array(value, types[key]) for key, value in columns.items()})
        columns = {key: _plain(value.tolist()) for key, value in sorted(outputs.items())}
        if layout == 'inputs':
            return {'outputs': columns if len(columns) > 1 else next(iter(columns.values()))}
        rows = [dict(zip(columns, values)) for values in zip(*columns.values(), strict=True)]
        return {'predictions': rows if len(columns) > 1 else next(iter(columns.values()))}


def _is_object(value):
    return isinstance(value, dict) and set(value) != {'b64'}


def _columns(rows):
    if not rows:
        raise ValueError("No values in 'instances' array")
    if not _is_object(rows[0]):
        return rows
    if any(not _is_object(row) or set(row) != set(rows[0]) for row in rows):
        raise ValueError("Failed to process an element of 'instances' list: keys must be equal")
    return {key: [row[key] for row in rows] for key in rows[0]}


def _array(value, dtype):
    """Nested lists of JSON -> array; no value is of another type than the signature's."""
    def leaf(value):
        if dtype == tf.string:
            return base64.b64decode(value['b64'], validate=True) if isinstance(value, dict) else value.encode()
        if type(value) not in ((int,) if dtype.is_integer else (int, float)):
            raise ValueError(f'JSON Value: {value!r} is not of expected type: {dtype.name}')
        return value

    def walk(value):
        return [walk(part) for part in value] if isinstance(value, list) else leaf(value)
    return np.array(walk(value), dtype.as_numpy_dtype)


def _plain(value):
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value.decode() if isinstance(value, bytes) else value


@contextlib.contextmanager
def rest(models):
    """{name: Servable} at http://localhost:PORT; gives PORT."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers['Content-Length']))
            asked = re.fullmatch(r'/v1/models/(\w+)(/versions/1)?:predict', self.path)
            try:
                if self.headers['Content-Type'] != 'application/json':      # KServe's rule; TensorFlow Serving has none
                    status, answer = 415, {'error': 'the content is not said to be JSON'}
                elif asked and asked[1] in models:
                    status, answer = 200, models[asked[1]].rest(body)
                else:
                    status, answer = 404, {'error': f'Servable not found for request: {self.path}'}
            except ValueError as error:
                status, answer = 400, {'error': str(error)}
            self.send_response(status)
            self.send_header('Content-Type', 'application/json')
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(('localhost', 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@contextlib.contextmanager
def by_grpc(models):
    """{name: Servable} at localhost:PORT; gives PORT."""
    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            try:
                return models[request.model_spec.name].predict(request)
            except (KeyError, ValueError) as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port('localhost:0')
    server.start()
    yield port
    server.stop(None).wait()
