"""The gate of an export: it lets an equal SavedModel pass, and refuses another number, class or text."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import models
from errors import RunError
from experiment import export
from strategies import selection
from tests.tasks.cases import CASES, case, marked

FAST = ('images', 'texts, lstm', 'vectors', 'pairs')


def examples_of(dataset):
    return dataset.test.gather(tf.range(12, dtype=tf.int64))


@pytest.mark.parametrize('name', [marked(name, name in FAST) for name in CASES])
def test_an_equal_saved_model_passes_by_both_loaders(name, tmp_path):
    keras.utils.set_random_seed(0)
    dataset, task, model = case(name)
    folder = export.export_saved_model(model, task, tmp_path / '1')
    # Boxes are in pixels: 32 to a side, of which float32's last digit is 4e-6.
    bound = 3e-5 if 'boxes' in name else 1e-5
    assert export.max_abs_difference(folder, model, task, examples_of(dataset)) <= bound


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    keras.utils.set_random_seed(0)
    dataset, task, model = case('images')
    return dataset, task, model, export.export_saved_model(model, task, tmp_path_factory.mktemp('export') / '1')


def test_another_number_is_refused(exported):
    dataset, task, model, folder = exported
    weights = model.get_weights()
    try:
        model.set_weights([weights[0] + 0.01, *weights[1:]])
        with pytest.raises(RunError, match="loaded by Python, signature serving_default: probabilities differs from "
                                           "the trained model's by 0.0"):
            export.max_abs_difference(folder, model, task, examples_of(dataset))
        model.set_weights([np.full_like(weights[0], np.nan), *weights[1:]])
        with pytest.raises(RunError, match='differs from the trained model\'s by nan'):
            export.max_abs_difference(folder, model, task, examples_of(dataset))
    finally:
        model.set_weights(weights)


def test_an_export_that_is_refused_leaves_the_one_before(exported, tmp_path):
    dataset, task, model, _ = exported
    folder = export.export_saved_model(model, task, tmp_path / '1')
    before = {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}
    other = keras.models.clone_model(model)      # with weights of its own
    with pytest.raises(RunError, match=f'the SavedModel for {folder}, loaded by Python, .* differs'):
        export.write_checked(folder, model, other, dataset, task)
    assert {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ['1']


def test_another_label_is_refused(exported):
    """The numbers are equal, only a string is not."""
    dataset, task, model, folder = exported
    renamed = type(task)(task.settings, dataset, _data_of('images'))
    renamed.class_names = [name.upper() for name in task.class_names]
    with pytest.raises(RunError, match=r"label at \[0\] is b'[abc]'; the trained model gives b'[ABC]'"):
        export.max_abs_difference(folder, model, renamed, examples_of(dataset))


def _data_of(name):
    from settings import Images
    return Images('made', **CASES[name][2])


def test_another_class_and_another_text_are_refused():
    for ours, theirs in ((np.int32([1, 2]), np.int32([1, 3])), (np.array([b'a'], object), np.array([b'b'], object)),
                         (np.array([True]), np.array([False]))):
        with pytest.raises(RunError, match='here: class at .* the trained model gives'):
            export._difference('here', 'class', ours, theirs)
    with pytest.raises(RunError, match='class is int32.2.; the trained model gives int32.1.'):
        export._difference('here', 'class', np.int32([1]), np.int32([1, 2]))


def nodes(folder):
    """All operations of a SavedModel, those of its functions among them."""
    saved = saved_model_pb2.SavedModel.FromString((folder / 'saved_model.pb').read_bytes())
    for graph in (meta.graph_def for meta in saved.meta_graphs):
        yield from graph.node
        for function in graph.library.function:
            yield from function.node_def


@pytest.mark.parametrize('name, options', [('images', {}), ('texts, lstm', {'bidirectional': True})])
def test_a_model_that_is_exported_where_a_gpu_is_runs_anywhere(tmp_path, monkeypatch, name, options):
    """Keras takes cuDNN's LSTM where it sees a GPU; nothing else has that operation."""
    dataset, task, _ = case(name)
    model = models.build('lstm', task.sizes, **options)
    monkeypatch.setattr(tf.config, 'list_logical_devices', lambda kind=None: ['a GPU'])
    with selection.select('cpu').on_host():
        folder = export.export_saved_model(model, task, tmp_path / '1')
        assert export.max_abs_difference(folder, model, task, examples_of(dataset)) <= 1e-5
    assert not [node.op for node in nodes(folder) if 'Cudnn' in node.op]
    # Restoring and saving are on the host in every SavedModel.
    assert all(node.device == '' or node.device.startswith('/device:CPU') for node in nodes(folder))


class Holding(tf.Module):
    """A module that holds the Keras model itself, as exports of 0.4.0 did: a Session finds no variable in it."""

    def __init__(self, model, task):
        super().__init__()
        self.model = model
        self.signatures_ = {name: tf.function(function, input_signature=specs)
                            for name, (function, specs) in task.serving(model).items()}


def test_a_saved_model_that_a_session_cannot_run_is_refused(tmp_path):
    keras.utils.set_random_seed(0)
    dataset, task, model = case('vectors')
    served = Holding(model, task)
    tf.saved_model.save(served, str(tmp_path / '1'), signatures=served.signatures_)
    with pytest.raises(RunError, match='loaded by a Session, cannot run its signature serving_default: .*variable'):
        export.max_abs_difference(tmp_path / '1', model, task, examples_of(dataset))
