"""The translation task: what it serves, greedily or by beam search, from strings to strings."""

import numpy as np
import pytest
import tensorflow as tf

from data.dataset import Text
from data.source import Tensors
from data.tokenizers.words import CharacterTokenizer
from errors import UserError
from experiment import export
from models.transformer import Transformer
from tasks import decoding
from tests.models.examples import source_of
from tests.opened import one_source, task_of

TEXTS = tf.constant(['abc', '', 'dddd', 'cab', 'b' * 99])


@pytest.fixture(scope='module')
def model():
    """Says END sooner or later, and not the same to every text."""
    model = Transformer(8, 8, num_layers=2, d_model=16, d_ff=32, heads=4)
    model.build({'source': (None, None), 'source_mask': (None, None), 'target': (None, None)})
    random = np.random.default_rng(3)
    scales = {'kernel': 0.4, 'gamma': 1, 'table': 0.3, 'bias': 0, 'beta': 0}
    for weight in model.weights:
        weight.assign(scales[weight.name] * random.standard_normal(weight.shape))
    return model


def make_task(**settings):
    pairs = Tensors(source=TEXTS.numpy(), target=TEXTS.numpy())
    return task_of('translation', one_source(pairs, source=Text('', CharacterTokenizer('abcd'), 6),
                                             target=Text('', CharacterTokenizer('wxyz'), 7)), options=settings)


def served(task, model):
    """What the served function gives for TEXTS, of which the second has no words."""
    function, [spec] = task.serving(model)['serving_default']
    outputs = tf.function(function, input_signature=[spec])(TEXTS)
    return outputs['text'].numpy().tolist(), outputs['log_probability'].numpy()


def expected(task, ids, log_p):
    texts = task.decode(ids).numpy().tolist()
    nothing = TEXTS.numpy() == b''
    return [b'' if empty else text for empty, text in zip(nothing, texts)], np.where(nothing, 0, log_p)


def assert_same(outputs, expected):
    assert outputs[0] == expected[0]
    np.testing.assert_allclose(outputs[1], expected[1], atol=1e-5)


def test_greedily_unless_it_is_told_otherwise(model):
    task = make_task()
    outputs = served(task, model)
    assert_same(outputs, expected(task, *decoding.greedy(model, source_of(task.source(TEXTS)), 7, task.target.special)))
    assert len(set(outputs[0])) > 2


@pytest.mark.parametrize('length_penalty', [0., 2.])
def test_the_best_hypothesis_of_a_beam_search(model, length_penalty):
    task = make_task(beam_size=4, length_penalty=length_penalty)
    ids, log_p = decoding.beam_search(model, source_of(task.source(TEXTS)), 7, task.target.special, 4, length_penalty)
    outputs = served(task, model)
    assert_same(outputs, expected(task, ids[:, 0], log_p[:, 0]))
    if not length_penalty:
        assert (outputs[1] > served(make_task(), model)[1] + 0.1).any()


@pytest.mark.slow
def test_a_saved_model_searches_too(model, tmp_path):
    task = make_task(beam_size=4)
    folder = export.export_saved_model(model, task, tmp_path / '1')
    assert export.max_abs_difference(folder, model, task, {'source': TEXTS}) < 1e-5


@pytest.mark.parametrize('settings, message', [
    ({'beam_size': 9}, '`beam_size` must be from 1 to 8, the number of words. Received: beam_size=9'),
    ({'length_penalty': -1.}, '`length_penalty` must be at least 0 and at most 100. Received: length_penalty=-1.0')])
def test_a_bad_setting(settings, message):
    with pytest.raises(UserError) as error:
        make_task(**settings)
    assert str(error.value) == message
