"""Greedy decoding with the cache, against a search that decodes the whole target again at each step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from data.text import END, PADDING, START
from models.transformer import Transformer
from tasks.translation import greedy_decode

LENGTH, WORDS = 9, 13
VARIANTS = pytest.mark.parametrize('options', [
    {'norm': 'pre'}, {'norm': 'post'}, {'norm': 'pre', 'share_embeddings': True}], ids=['pre', 'post', 'shared'])


def random_model(**options):
    """Far from its initial weights, at which tied embeddings make a decoder repeat the token it has read."""
    model = Transformer(WORDS, WORDS, **{'num_layers': 2, 'd_model': 16, 'd_ff': 32, 'heads': 4, **options})
    model.build({'source': (None, None), 'target': (None, None)})
    random = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(weight + 0.3 * random.standard_normal(weight.shape))
    return model


def sources(batch=32, length=6):
    """Of each number of tokens, from an empty one to one that fills its row."""
    random = np.random.default_rng(1)
    tokens = random.integers(3, WORDS, (batch, length), dtype='int32')
    return tf.constant(np.where(np.arange(length) < np.arange(batch)[:, None] % (length + 1), tokens, PADDING))


def uncached_greedy_decode(model, source, length):
    memory = model.encode(source)
    target, scores = np.full((len(source), 1), START), np.zeros(len(source))
    ended = np.zeros(len(source), bool)
    for _ in range(length):
        log_p = tf.nn.log_softmax(model.decode(target, memory, source)[:, -1]).numpy()  # [B, V]
        token = np.where(ended, PADDING, log_p.argmax(-1))
        scores += np.where(ended, 0, log_p.max(-1))
        ended |= token == END
        target = np.concatenate([target, token[:, None]], axis=1)
    return target[:, 1:], scores


def compiled(model, jit_compile=False):
    return tf.function(lambda source: greedy_decode(model, source, LENGTH), jit_compile=jit_compile)


@VARIANTS
def test_the_cache_changes_no_token_and_no_probability(options):
    model, source = random_model(**options), sources()
    expected, expected_scores = uncached_greedy_decode(model, source, LENGTH)
    lengths = set(np.argmax(expected == END, axis=1))
    assert len(lengths) > 2 and 0 in lengths, 'some sentences should end at different places, and some should be cut'
    for decode in (lambda source: greedy_decode(model, source, LENGTH), compiled(model), compiled(model, True)):
        ids, scores = decode(source)
        assert ids.shape == (32, LENGTH) and ids.dtype == 'int32'
        np.testing.assert_array_equal(ids, expected)
        np.testing.assert_allclose(scores, expected_scores, atol=1e-4)


def test_the_score_is_that_of_teacher_forcing():
    model, source = random_model(), sources()
    ids, scores = compiled(model)(source)
    target = tf.concat([tf.fill([32, 1], START), ids[:, :-1]], axis=1)
    log_p = tf.nn.log_softmax(model({'source': source, 'target': target}))  # [B, T, V]
    log_p = tf.gather(log_p, ids, axis=2, batch_dims=2)  # [B, T]
    np.testing.assert_allclose(scores, tf.reduce_sum(tf.where(ids == PADDING, 0., log_p), axis=1), atol=1e-4)


def test_nothing_follows_the_end():
    ids, _ = compiled(random_model())(sources())
    ends = np.cumsum(ids == END, axis=1)
    assert ends.max() == 1
    before = np.cumsum(ends, axis=1)  # 0 before END, 1 at END
    assert (ids.numpy()[before > 1] == PADDING).all() and (before > 1).any()


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
    ids, scores = compiled(random_model())(tf.zeros([0, 6], tf.int32))
    assert ids.shape == (0, LENGTH) and scores.shape == (0,)


def test_a_saved_model_decodes_batches_of_any_size(tmp_path):
    module = tf.Module()
    module.model = random_model()
    signature = tf.TensorSpec([None, 6], tf.int32)
    module.decode = tf.function(lambda source: greedy_decode(module.model, source, LENGTH), [signature])
    assert module.decode.get_concrete_function().structured_outputs[0].shape == (None, LENGTH)
    tf.saved_model.save(module, str(tmp_path / 'saved'))
    loaded = tf.saved_model.load(str(tmp_path / 'saved'))
    for source in (sources(7), sources(1)):
        for value, expected in zip(loaded.decode(source), greedy_decode(module.model, source, LENGTH), strict=True):
            np.testing.assert_allclose(value, expected, atol=1e-4)


@pytest.mark.parametrize('policy', ['mixed_float16', 'mixed_bfloat16'])
def test_half_precision_agrees_with_float32(policy):
    with_weights = random_model()
    model = random_model(dtype=policy)
    source = sources()
    ids, scores = compiled(model, True)(source)
    assert scores.dtype == 'float32' and np.isfinite(scores).all()
    same = np.all(ids == compiled(with_weights)(source)[0], axis=1)
    assert same.mean() > 0.5  # where two tokens are nearly as likely, rounding decides
    keras.utils.clear_session()
