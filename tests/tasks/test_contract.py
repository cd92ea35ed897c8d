"""What tasks/task.py promises, for every task in every form, see cases.py: a new one is tested by being in TASKS."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import predict
from data.dataset import Image
from data.pipeline import first_rows, training_slices
from data.source import Subset
from draws import Draws
from settings.recipe import SECTIONS
from strategies import tpu_rules
from strategies.graphs import called_functions, function_graph
from tasks import TASKS
from tasks.task import SHOWN
from tests.tasks.cases import CASES, case
from training.optimizer import make_optimizer
from training.randomness import install
from training.step import TrainStep

SEED, STEP = 3, 7


@pytest.fixture(scope='module', params=CASES)
def made(request):
    keras.utils.set_random_seed(0)
    dataset, task, model = case(request.param)
    return dataset, task, model, task.rows(dataset.train, training=True)


def batch(task, rows, first, count, training=True):
    """Rows first .. first + count of a batch, as the pipeline gives them to one replica."""
    indices = tf.range(first, first + count, dtype=tf.int64)
    return task.batch(rows.gather(indices), Draws(SEED, STEP, first), training=training)


def evaluated(dataset, task):
    rows = task.rows(dataset.test)
    x, y, weights = batch(task, rows, 0, rows.num_examples, training=False)
    return x, y, weights, tf.ones([rows.num_examples])


def part(nested, start, stop):
    return tf.nest.map_structure(lambda t: t[start:stop], nested)


def numbers(nested):
    return [np.asarray(t) for t in tf.nest.flatten(nested)]


def test_all_are_listed():
    assert {name for name, *_ in CASES.values()} == set(TASKS)


def test_the_names_that_a_task_gives_are_real(made):
    dataset, task, model, rows = made
    assert task.name in TASKS and set(task.roles) == set(task.needs) and task.reads in SECTIONS['data']
    section = SECTIONS['data'][task.reads]
    asked = ['model', section.asked_by, *filter(None, [section.about])]
    assert section.asked_by in predict.ASKED and list(inspect.signature(task.predict).parameters) == asked
    assert SECTIONS['task'][task.name].writes == hasattr(task, 'sampling')
    for role, field in task.roles.items():
        assert isinstance(dataset.fields[field], task.needs[role])
    x, y, weights = batch(task, rows, 0, 4)
    assert list(task.training_totals(y, model(x, training=False), weights)) == ['loss', *task.training_metrics]
    x, y, weights, real = evaluated(dataset, task)
    values = task.results(task.evaluation_totals(model, x, y, weights, real))
    answers = task.answers(model, x)
    if tf.nest.flatten(answers):
        values |= task.compare(tf.nest.map_structure(lambda t: t.numpy(), answers), dataset.test)
    assert {task.best[0], *task.shown, *task.training_metrics, 'loss', 'count'} <= set(values)
    assert values['count'] == 12 and abs(task.best[1]) == 1


def test_a_slice_of_a_batch_is_the_slice_of_the_whole_and_nothing_else_is_random(made):
    _, task, _, rows = made
    count = rows.num_examples // 2 * 2
    whole = batch(task, rows, 0, count)
    halves = [batch(task, rows, first, count // 2) for first in (0, count // 2)]
    for array, *parts in zip(numbers(whole), *map(numbers, halves), strict=True):
        np.testing.assert_array_equal(array, np.concatenate(parts))
    for array, again in zip(numbers(whole), numbers(batch(task, rows, 0, count)), strict=True):
        np.testing.assert_array_equal(array, again)


def test_totals_of_halves_add_up_and_a_row_of_weight_0_changes_nothing(made):
    dataset, task, model, _ = made
    x, y, weights, real = evaluated(dataset, task)
    spoilt = tf.concat([weights[:8], tf.zeros_like(weights[8:])], axis=0)
    whole = task.evaluation_totals(model, x, y, spoilt, real)
    halves = [task.evaluation_totals(model, *part((x, y, spoilt, real), *bounds)) for bounds in ((0, 6), (6, 12))]
    first = task.evaluation_totals(model, *part((x, y, spoilt, real), 0, 8))
    for name, pair in whole.items():
        np.testing.assert_allclose(sum(np.array(half[name]) for half in halves), pair, rtol=1e-4, err_msg=name)
        if name != 'count':
            np.testing.assert_allclose(first[name], pair, rtol=1e-4, err_msg=name)


def test_an_answer_does_not_depend_on_the_rest_of_its_batch(made):
    dataset, task, model, _ = made
    examples = dataset.test.gather(tf.range(12, dtype=tf.int64))
    for name, inputs in task.served_inputs(examples).items():
        function, specs = task.serving(model)[name]
        assert len(specs) == len(inputs)
        whole = function(*inputs)
        for row in (0, 7):
            for key, value in function(*(t[row:row + 1] for t in inputs)).items():
                if value.dtype.is_floating:
                    np.testing.assert_allclose(value[0], whole[key][row], atol=1e-5, err_msg=f'{name} {key}')
                else:
                    assert np.array_equal(value[0], whole[key][row]), (name, key)


def test_what_tensorboard_shows_are_images_and_tables(made):
    dataset, task, model, rows = made
    x, *_ = batch(task, rows, 0, 4)
    for shown in (task.show_inputs(x), task.show_answers(model, dataset.test)):
        for name, what in shown.items():
            if isinstance(what, list):
                assert {len(row) for row in what} == {len(what[0])} and all(isinstance(t, str) for r in what for t in r)
                assert len(what) <= 1 + SHOWN
            else:
                assert what.shape.rank == 4 and what.dtype.is_floating and 0 < len(what) <= SHOWN
                assert 0. <= np.min(what) and np.max(what) <= 1.
    assert task.show_answers(model, dataset.test)


def test_the_mistakes_are_those_of_the_evaluation(made):
    dataset, task, model, _ = made
    if task.name != 'classification':
        pytest.skip('only a class can be a mistake')
    x, y, *_ = evaluated(dataset, task)
    predicted = np.argmax(model(x, training=False), axis=-1)
    expected = [(i, task.class_names[y[i]], task.class_names[predicted[i]]) for i in range(12) if predicted[i] != y[i]]
    assert task.mistakes(model, dataset.test) == expected
    shown = task.show_answers(model, dataset.test)
    if task.reads == 'images':
        assert sum(map(len, shown.values())) == len(expected)
        for i, label, wrong in expected:
            assert any(np.array_equal(x[i], image) for image in shown[f'mistakes/{label} predicted as {wrong}'])
    else:
        texts = dataset.test.gather(tf.range(12))['text'].numpy()
        assert shown['mistakes'][1:] == [[texts[i].decode(), label, wrong] for i, label, wrong in expected]


def test_nothing_is_shown_of_a_classification_without_mistakes(made):
    dataset, task, model, _ = made
    if task.name == 'classification':
        x, y, *_ = evaluated(dataset, task)
        right = np.flatnonzero(np.argmax(model(x, training=False), axis=-1) == y)
        shown = task.show_answers(model, Subset(dataset.test, right))
        assert not any(len(what) > 1 for what in shown.values()) and len(right)


def test_the_first_rows_are_those_of_the_first_training_step(made):
    _, task, _, rows = made
    options = {'batch_size': 8, 'seed': SEED}
    whole, _, _ = next(iter(training_slices(rows, task.batch, **options)()))
    first, _, _ = first_rows(rows, task.batch, count=3, **options)
    for array, few in zip(numbers(whole), numbers(first), strict=True):
        np.testing.assert_array_equal(array[:3], few)


def test_an_empty_batch_has_an_empty_answer(made):
    dataset, task, model, _ = made
    if any(isinstance(layer, keras.layers.ZeroPadding2D) for layer in model.layers):
        pytest.skip('a limit, see docs/limits.md: TensorFlow fuses a padding into its convolution, which then fails')
    for name, inputs in task.served_inputs(dataset.test.gather(tf.range(2, dtype=tf.int64))).items():
        function, specs = task.serving(model)[name]
        outputs = tf.function(function, input_signature=specs)(*(value[:0] for value in inputs))
        assert outputs and all(value.shape[0] == 0 for value in outputs.values()), name


def test_what_is_served_is_the_model_on_prepared_rows(made):
    """The way from raw inputs is that of training, but for what is random there."""
    dataset, task, model, _ = made
    if task.name in ('translation', 'masked_lm', 'question_answering'):
        pytest.skip('its answers are compared below, as strings, or in a test of its own')
    x, *_ = evaluated(dataset, task)
    expected = task.decode(model(x, training=False))
    examples = dataset.test.gather(tf.range(12, dtype=tf.int64))
    for name, inputs in task.served_inputs(examples).items():
        outputs = task.comparable(task.serving(model)[name][0](*inputs))
        outputs = {'classes': outputs['mask']} if 'mask' in outputs else outputs
        # Signatures of plain numbers leave strings out.
        assert set(expected) - set(outputs) <= ({'label', 'labels'} if name in ('pixels', 'tokens') else set())
        for key, value in ((key, expected[key]) for key in outputs if key in expected):
            # An image that is resized is rounded to bytes for these signatures, and not in training.
            rounded = dataset.fields.get('image') == Image((0, 0, 3))
            if value.dtype.is_floating:
                np.testing.assert_allclose(outputs[key], value, atol=2e-2 if rounded else 1e-5, err_msg=f'{name} {key}')
            elif not rounded:
                assert np.array_equal(outputs[key], value), (name, key)


def test_translations_are_answers_as_strings():
    dataset, task, model = case('pairs')
    x, *_ = evaluated(dataset, task)
    examples = dataset.test.gather(tf.range(12, dtype=tf.int64))
    served = task.serving(model)['serving_default'][0](*task.served_inputs(examples)['serving_default'])
    np.testing.assert_array_equal(served['text'], task.decode(task.answers(model, x)))


def traced_step(task, model, rows):
    """The graph of a training step of 4 rows."""
    install(model)
    step = TrainStep(model, make_optimizer('sgd', model.trainable_variables, 0.1), task, batch_size=4, replicas=1)
    specs = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), batch(task, rows, 0, 4))
    assert all(spec.shape.is_fully_defined() for spec in tf.nest.flatten(specs))
    traced = tf.function(lambda x, y, weights, number: step((x, y, weights), number))
    return traced.get_concrete_function(*specs, tf.TensorSpec([], tf.int64)).graph


def is_shared(tensor):
    """Whether another operation reads the tensor's memory too."""
    if len(tensor.consumers()) > 1:
        return True
    return tensor.op.type in ('Reshape', 'Identity') and is_shared(tensor.op.inputs[0])


def sums_without_an_order(graph):
    """AddN of 3 and more, whose bits depend on which thread is done first (E2), also under op determinism.

    Its kernel (tensorflow/core/kernels/aggregate_ops.cc) begins with the first input whose memory nobody else holds any
    more. Where that is one of the first two in any case, the sum is the same: a + b = b + a.
    """
    found = [op.name for op in graph.get_operations() if op.type == 'AddN' and len(op.inputs) > 2
             and all(map(is_shared, op.inputs[:2]))]
    bodies = (function_graph(graph, name) for op in graph.get_operations() for name in called_functions(op))
    return found + [name for body in bodies if body is not None for name in sums_without_an_order(body)]


def test_a_sum_without_an_order_is_found():
    @tf.function
    def both_shared(a):
        b, c = 2. * a, 3. * a
        return tf.add_n([b, tf.reshape(c, [2]), 4. * a]), tf.sin(b), tf.sin(c)

    @tf.function
    def one_shared(a):
        b = 2. * a
        return tf.add_n([b, 3. * a, 4. * a]), tf.sin(b)
    graphs = [function.get_concrete_function(tf.TensorSpec([2])).graph for function in (both_shared, one_shared)]
    assert list(map(sums_without_an_order, graphs)) == [['AddN'], []]


def test_gradients_are_summed_in_one_order(made):
    _, task, model, rows = made
    assert sums_without_an_order(traced_step(task, model, rows)) == []


def test_shapes_are_static_and_a_tpu_can_run_the_step(made):
    _, task, model, rows = made
    assert tpu_rules.violations(traced_step(task, model, rows)) == []


def test_the_axes_that_a_product_was_repeated_along_are_no_dynamic_shape():
    @tf.function
    def gradient(x, kernel):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            y = tf.matmul(x, kernel)
        return tape.gradient(y, kernel)
    graph = gradient.get_concrete_function(tf.TensorSpec([2, 3, 4]), tf.TensorSpec([4, 5])).graph
    assert 'BroadcastGradientArgs' in {op.type for op in graph.get_operations()}     # of Dense in Keras 3.13 and 3.14
    assert tpu_rules.violations(graph) == []
