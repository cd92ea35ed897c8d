"""Greedy decoding with the cache, against a search that decodes the whole target again at each step."""

import numpy as np
import pytest
import tensorflow as tf

from data.text import END, PADDING, START
from models.transformer import Transformer
from tasks.translation import greedy_decode

LENGTH, WORDS = 9, 8


def random_model(seed=3, **options):
    """Far from the initial weights, at which a decoder with tied embeddings repeats the token that it has read.

    A seed is one of a model that ends some sentences, not at once and not all.
    """
    model = Transformer(WORDS, WORDS, **{'num_layers': 2, 'd_model': 16, 'd_ff': 32, 'heads': 4, **options})
    model.build({'source': (None, None), 'target': (None, None)})
    random = np.random.default_rng(seed)
    scales = {'kernel': 0.4, 'gamma': 1, 'table': 0.3, 'bias': 0, 'beta': 0}
    for weight in model.weights:
        weight.assign(scales[weight.name] * random.standard_normal(weight.shape))
    return model


def sources(batch=32, length=6):
    """Of each number of tokens, from an empty one to one that fills its row."""
    random = np.random.default_rng(1)
    tokens = random.integers(3, WORDS, (batch, length), dtype='int32')
    return tf.constant(np.where(np.arange(length) < np.arange(batch)[:, None] % (length + 1), tokens, PADDING))


def uncached_greedy_decode(model, source, length):
    memory = model.encode(source)
    target, scores = np.zeros((len(source), length + 1), 'int32'), np.zeros(len(source))
    target[:, 0], ended = START, np.zeros(len(source), bool)
    for t in range(length):
        log_p = tf.nn.log_softmax(model.decode(target[:, :length], memory, source)[:, t]).numpy()  # [B, V]
        target[:, t + 1] = np.where(ended, PADDING, log_p.argmax(-1))
        scores += np.where(ended, 0, log_p.max(-1))
        ended |= target[:, t + 1] == END
    return target[:, 1:], scores


def compiled(model, jit_compile=False):
    return tf.function(lambda source: greedy_decode(model, source, LENGTH), jit_compile=jit_compile)


def teacher_forced_scores(model, source, ids):
    """The summed log-probability [B] of the tokens `ids` [B, T], END included."""
    target = tf.concat([tf.fill([len(ids), 1], START), ids[:, :-1]], axis=1)
    log_p = tf.nn.log_softmax(model({'source': source, 'target': target}))  # [B, T, V]
    log_p = tf.gather(log_p, ids, axis=2, batch_dims=2)  # [B, T]
    after = tf.cumsum(tf.cast(ids == END, tf.int32), axis=1, exclusive=True) > 0
    return tf.reduce_sum(tf.where(after, 0., log_p), axis=1)


@pytest.mark.parametrize('options', [
    {'norm': 'pre', 'seed': 3}, {'norm': 'post', 'seed': 2}, {'share_embeddings': True, 'seed': 4}],
    ids=['pre', 'post', 'shared'])
def test_the_cache_changes_no_token_and_no_probability(options):
    model, source = random_model(**options), sources()
    expected, expected_scores = uncached_greedy_decode(model, source, LENGTH)
    ended = (expected == END).any(axis=1)
    assert 0 < ended.mean() < 1 and len(set(np.argmax(expected[ended] == END, axis=1))) > 1
    ids, scores = compiled(model)(source)
    assert ids.shape == (32, LENGTH) and ids.dtype == 'int32'
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-4)


@pytest.fixture(scope='module')
def decoded():
    model, source = random_model(), sources()
    return model, source, *greedy_decode(model, source, LENGTH)


@pytest.mark.slow
def test_eagerly_and_compiled_the_same(decoded):
    model, source, ids, scores = decoded
    for jit_compile in (False, True):
        same_ids, same_scores = compiled(model, jit_compile)(source)
        np.testing.assert_array_equal(same_ids, ids)
        np.testing.assert_allclose(same_scores, scores, atol=1e-4)


def test_the_score_is_that_of_teacher_forcing(decoded):
    model, source, ids, scores = decoded
    np.testing.assert_allclose(scores, teacher_forced_scores(model, source, ids), atol=1e-4)


def test_nothing_follows_the_end(decoded):
    ids = decoded[2].numpy()
    after = np.cumsum(np.cumsum(ids == END, axis=1), axis=1) > 1
    assert after.any() and (ids[after] == PADDING).all()


@pytest.mark.parametrize('policy', ['mixed_float16', 'mixed_bfloat16'])
def test_half_precision(policy):
    model, source = random_model(dtype=policy), sources()
    ids, scores = greedy_decode(model, source, LENGTH)
    assert scores.dtype == 'float32'
    np.testing.assert_allclose(scores, teacher_forced_scores(model, source, ids), rtol=0.02, atol=0.05)


class Scripted:
    """Says END to sentence i at step `ends[i]`, another token until then, and counts its steps."""

    def __init__(self, ends):
        self.ends, self.steps = tf.constant(ends), 0

    def encode(self, source):
        return source

    def start_cache(self, memory, source, length):
        return {}

    def decode_step(self, token, t, cache):
        self.steps += 1
        return tf.one_hot(tf.where(t == self.ends, END, 5), WORDS), cache


@pytest.mark.parametrize('ends, steps', [([0, 3, 1], 4), ([0, 0, 0], 1), ([0, 99, 1], LENGTH)])
def test_stops_when_every_sentence_has_ended(ends, steps):
    model = Scripted(ends)
    ids, scores = greedy_decode(model, tf.zeros([3, 6], tf.int32), LENGTH)
    assert model.steps == steps and ids.shape == (3, LENGTH)
    expected = [([5] * end + [END] + [PADDING] * LENGTH)[:LENGTH] for end in ends]
    np.testing.assert_array_equal(ids, expected)
    tokens = np.minimum(np.array(ends) + 1, LENGTH)
    np.testing.assert_allclose(scores, tokens * tf.nn.log_softmax(tf.one_hot(5, WORDS))[5], rtol=1e-5)


def test_no_sentences():
    ids, scores = greedy_decode(random_model(), tf.zeros([0, 6], tf.int32), LENGTH)
    assert ids.shape == (0, LENGTH) and scores.shape == (0,)


def test_a_saved_model_decodes_batches_of_any_size(tmp_path):
    module = tf.Module()
    module.model = random_model(num_layers=1)
    signature = tf.TensorSpec([None, 6], tf.int32)
    module.decode = tf.function(lambda source: greedy_decode(module.model, source, LENGTH), [signature])
    assert module.decode.get_concrete_function().structured_outputs[0].shape == (None, LENGTH)
    tf.saved_model.save(module, str(tmp_path / 'saved'))
    loaded = tf.saved_model.load(str(tmp_path / 'saved'))
    for source in (sources(7), sources(1)):
        for value, expected in zip(loaded.decode(source), greedy_decode(module.model, source, LENGTH), strict=True):
            np.testing.assert_allclose(value, expected, atol=1e-4)
