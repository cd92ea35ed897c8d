"""Each task's SavedModel, every signature, asked by TensorFlow's C interface, as servers in C, Go, Java and Rust do."""

import importlib.util
import pathlib
import shutil
import struct
import subprocess

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from experiment import export
from tests.conftest import clean_environment
from tests.tasks.cases import CASES, case, marked

SOURCE = pathlib.Path(__file__).parent / 'serve.c'
WHEEL = pathlib.Path(importlib.util.find_spec('tensorflow').origin).parent


@pytest.fixture(scope='module')
def serve(tmp_path_factory):
    """The program of serve.c, linked with the library of the installed wheel."""
    if not shutil.which('gcc'):
        pytest.skip('needs gcc')
    program = tmp_path_factory.mktemp('program') / 'serve'
    subprocess.run(['gcc', '-Wall', '-Werror', '-D_GNU_SOURCE', '-o', program, SOURCE, f'-I{WHEEL / "include"}',
                    f'-L{WHEEL}', '-l:libtensorflow_cc.so.2', '-l:libtensorflow_framework.so.2',
                    f'-Wl,-rpath,{WHEEL}'], check=True)
    return program


def request(serve, folder, signature, inputs, scratch):
    """{name: array} that the program gives for {name: array}."""
    saved = saved_model_pb2.SavedModel.FromString((folder / 'saved_model.pb').read_bytes())
    names = saved.meta_graphs[0].signature_def[signature]
    arguments = []
    for name, value in inputs.items():
        file, shape = scratch / f'in_{name}', 'x'.join(map(str, value.shape))
        file.write_bytes(value.tobytes() if value.dtype != object else b''.join(
            struct.pack('<Q', len(text)) + text for text in value.ravel()))
        arguments.append(f'{names.inputs[name].name}:{tf.as_dtype(value.dtype).as_datatype_enum}:{shape}:{file}')
    outputs = {name: scratch / f'out_{name}' for name in names.outputs}
    subprocess.run([serve, folder, *arguments, '--', *(f'{names.outputs[name].name}:{file}'
                                                       for name, file in outputs.items())],
                   check=True, env=clean_environment(PYTHONPATH='/nothing'))
    return {name: read(file.read_bytes()) for name, file in outputs.items()}


def read(content):
    """A file that the program wrote -> array."""
    head, _, data = content.partition(b'\n')
    number, _, shape = head.decode().partition(':')
    shape = [int(size) for size in shape.split('x') if size]
    if int(number) != tf.string.as_datatype_enum:
        return np.frombuffer(data, tf.as_dtype(int(number)).as_numpy_dtype).reshape(shape)
    texts = []
    while data:
        (length,) = struct.unpack('<Q', data[:8])
        texts.append(data[8:8 + length])
        data = data[8 + length:]
    return np.array(texts, object).reshape(shape)


@pytest.mark.parametrize('name', [marked(name, False) for name in CASES])
def test_a_server_without_python_gives_the_answers_of_the_model(serve, name, tmp_path):
    keras.utils.set_random_seed(0)
    dataset, task, model = case(name)
    folder = export.export_saved_model(model, task, tmp_path / '1')
    asked = task.served_inputs(dataset.test.gather(tf.range(5, dtype=tf.int64)))
    for signature, (function, specs) in task.serving(model).items():
        inputs = {spec.name: value.numpy() for spec, value in zip(specs, asked[signature], strict=True)}
        theirs = request(serve, folder, signature, inputs, tmp_path)
        for output, ours in function(*asked[signature]).items():
            assert theirs[output].shape == ours.shape
            if ours.dtype.is_floating:
                np.testing.assert_allclose(theirs[output], ours, atol=1e-5)
            else:
                np.testing.assert_array_equal(theirs[output], ours.numpy(), err_msg=output)
