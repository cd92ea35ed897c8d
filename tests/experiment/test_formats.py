"""export.py --format: every task's model, in every other runtime, answers as the model does; and what is refused."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks import formats as benchmark
from errors import RunError
from experiment import formats
from experiment.formats.convert import compare, convert
from experiment.formats.plain import Plain
from tests.tasks.cases import CASES, case, marked

for package in ('ai_edge_litert', 'onnxruntime', 'openvino', 'tf2onnx'):
    pytest.importorskip(package, reason='needs pip install -e ".[litert,onnx,openvino]"')
FAST = {('images', 'litert'), ('texts, lstm', 'litert'), ('vectors', 'onnx'), ('images', 'openvino')}


def converted(name, format_name, folder, **options):
    keras.utils.set_random_seed(0)
    dataset, task, model = case(name)
    module = formats.module_of(format_name)
    return convert(module, format_name, task, model, dataset.test, folder, **options), module, task, model


@pytest.mark.parametrize('name, format_name', [
    marked(name, (name, format_name) in FAST, format_name) for name in CASES for format_name in formats.FORMATS])
def test_a_format_answers_as_the_model_does(name, format_name, tmp_path):
    described, module, task, model = converted(name, format_name, tmp_path / 'out')
    assert described == json.loads((tmp_path / 'out' / formats.DESCRIPTION).read_text())
    assert described['compared'].keys() == described['signatures'].keys() == Plain(task, model).functions.keys()
    for found in described['compared'].values():
        assert found['max_difference'] <= 1e-5 and found['unequal'] == 0 and found['examples'] == 12
        assert found['model'] == pytest.approx(found['format'], abs=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == ['out']
    if 'images' in described['signatures'].get('serving_default', {}).get('inputs', {}):
        _of_any_size(module.load(tmp_path / 'out', task), Plain(task, model), described['batch_size'])


def _of_any_size(run, plain, batch_size):
    for shape in ((5, 9, 3), (40, 33, 1), (12, 12, 4)):
        images = np.random.RandomState(1).randint(0, 256, (1 if batch_size == 1 else 2, *shape)).astype(np.uint8)
        theirs = run('serving_default', {'images': images})
        for name, ours in plain.functions['serving_default'](images).items():
            if ours.dtype.is_floating:
                # Images with boxes are resized to bytes: what lies between two is rounded to either.
                tolerance = 1e-5 if name == 'probabilities' else 1e-3
                np.testing.assert_allclose(theirs[name], ours, rtol=tolerance, atol=tolerance)
            else:
                assert theirs[name].shape == ours.shape
                assert np.sum(theirs[name] != ours) <= 1        # a pixel at a near tie, or none


def test_recurrent_layers_in_litert_take_a_static_batch(tmp_path):
    described, module, task, _ = converted('texts, lstm', 'litert', tmp_path / 'one')
    assert described['batch_size'] == 1
    described, module, task, _ = converted('texts, lstm', 'litert', tmp_path / 'five', batch_size=5)
    assert described['batch_size'] == 5      # the twelve examples were asked about in three, the last filled up
    assert described['signatures']['tokens']['inputs']['ids']['shape'] == [5, 7]
    answer = module.load(tmp_path / 'five', task)('tokens', {'ids': np.ones([5, 7], np.int32)})
    assert answer['probabilities'].shape == (5, 3)


@pytest.mark.parametrize('quantize', formats.QUANTIZED['litert'])
def test_a_quantized_file_is_smaller_and_says_how_it_differs(quantize, tmp_path):
    whole, *_ = converted('images', 'litert', tmp_path / 'whole')
    small, *_ = converted('images', 'litert', tmp_path / 'small', quantize=quantize)
    sizes = [(tmp_path / name / 'model.tflite').stat().st_size for name in ('whole', 'small')]
    assert sizes[1] < 0.7 * sizes[0] and small['quantize'] == quantize
    assert 1e-5 < small['compared']['pixels']['max_difference'] < 0.1
    assert small['compared']['pixels']['format'].keys() == {'accuracy'}


def test_another_answer_is_refused_and_leaves_the_folder(tmp_path, monkeypatch):
    converted('vectors', 'onnx', tmp_path / 'out')
    before = {path.name: path.read_bytes() for path in (tmp_path / 'out').iterdir()}
    module = formats.module_of('onnx')
    write = module.write

    def other(plain, model, folder, quantize):
        weights = model.get_weights()
        model.set_weights([weight + 0.01 for weight in weights])
        write(plain, model, folder, quantize)
        model.set_weights(weights)
    monkeypatch.setattr(module, 'write', other)
    with pytest.raises(RunError, match=r"out, signature serving_default: its answers differ from the trained model's "
                                       r'by \S+ at most \(bound 0.0001\), and 0 of 12'):
        converted('vectors', 'onnx', tmp_path / 'out')
    assert {path.name: path.read_bytes() for path in (tmp_path / 'out').iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ['out']


def test_another_class_another_shape_and_a_number_that_is_none_are_refused():
    dataset, task, model = case('images')
    plain = Plain(task, model)

    def changed(name, change):
        def run(signature, inputs):
            outputs = {k: v.numpy() for k, v in plain.functions[signature](*inputs.values()).items()}
            return {**outputs, name: change(outputs[name])}
        return lambda: compare(run, plain, task, dataset.test)
    assert changed('class', np.copy)()['pixels']['unequal'] == 0
    with pytest.raises(RunError, match='and 12 of 12 in a whole number'):
        changed('class', lambda numbers: (numbers + 1) % 3)()
    with pytest.raises(RunError, match='by nan at most'):
        changed('probabilities', lambda numbers: numbers * np.nan)()
    with pytest.raises(RunError, match=r'class is int32\[12, 1\]; the trained model gives int32\[12\]'):
        changed('class', lambda numbers: numbers[:, None])()


def test_a_model_that_a_format_cannot_hold_is_one_line(tmp_path):
    dataset, task, model = case('vectors')

    def serving(model):
        spec = tf.TensorSpec([None, 4], tf.float32, name='values')
        return {'serving_default': (sums, [spec])}

    def sums(values):
        return {'value': tf.reshape(tf.py_function(np.sum, [values], tf.float32), [-1])}
    task.serving = serving
    with pytest.raises(RunError, match='^the format onnx cannot hold this model: '):
        convert(formats.module_of('onnx'), 'onnx', task, model, dataset.test, tmp_path / 'out')
    assert list(tmp_path.iterdir()) == []


def test_the_table_of_the_page_is_that_of_the_stored_results():
    page = benchmark.PAGE.read_text(encoding='utf-8')
    assert benchmark.table() in page.split(f'{benchmark.START}\n')[1].split(benchmark.END)[0]
    assert page.count(benchmark.START) == 1
