"""Greedy decoding, beam search and sampling, against searches that decode the whole target again at each step."""

import itertools

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from data.tokenizers.special import PLAIN
from draws import Draws
from errors import UserError
from models.transformer import Transformer
from strategies import tpu_rules
from tasks import decoding
from tests.models.examples import source_of

LENGTH, WORDS = 9, 8
PADDING, START, END = PLAIN.pad, PLAIN.start, PLAIN.end
DRAWS = Draws(3)
DECODERS = {'greedy': decoding.greedy, 'beam search': decoding.beam_search,
            'sampling': lambda *arguments: decoding.sample(*arguments, DRAWS, top_k=6, top_p=0.9)}


def random_model(kind=Transformer, words=WORDS, seed=3, **options):
    """Far from the initial weights, at which a decoder with tied embeddings repeats the token that it has read.

    A seed is one of a model that ends some sentences, not at once and not all.
    """
    model = kind(words, words, **{'num_layers': 2, 'd_model': 16, 'd_ff': 32, 'heads': 4, **options})
    model.build({'source': (None, None), 'source_mask': (None, None), 'target': (None, None)})
    random = np.random.default_rng(seed)
    scales = {'kernel': 0.4, 'gamma': 1, 'table': 0.3, 'bias': 0, 'beta': 0}
    for weight in model.weights:
        weight.assign(scales[weight.name] * random.standard_normal(weight.shape))
    return model


def sources(batch=32, length=6):
    """Sources of every number of tokens, from an empty one to one that fills its row."""
    random = np.random.default_rng(1)
    tokens = random.integers(3, WORDS, (batch, length), dtype='int32')
    return tf.constant(np.where(np.arange(length) < np.arange(batch)[:, None] % (length + 1), tokens, PADDING))


def write(decoder, model, source, *arguments, length=LENGTH, **options):
    return decoder(model, source_of(source), length, PLAIN, *arguments, **options)


def compiled(model, decoder, jit_compile=False):
    return tf.function(lambda source: write(decoder, model, source), jit_compile=jit_compile)


def teacher_forced_scores(model, source, ids):
    """The summed log-probability [B] of the tokens `ids` [B, T], END included."""
    target = tf.concat([tf.fill([len(ids), 1], START), ids[:, :-1]], axis=1)
    log_p = tf.nn.log_softmax(model({**source_of(source), 'target': target}))  # [B, T, V]
    log_p = tf.gather(log_p, ids, axis=2, batch_dims=2)  # [B, T]
    after = tf.cumsum(tf.cast(ids == END, tf.int32), axis=1, exclusive=True) > 0
    return tf.reduce_sum(tf.where(after, 0., log_p), axis=1)


def tokens_of(ids):
    """ids [..., T] -> the number of tokens [...], END included."""
    ended = np.any(ids == END, axis=-1)
    return np.where(ended, np.argmax(np.equal(ids, END), axis=-1) + 1, ids.shape[-1])


def penalised(log_p, ids, alpha):
    return log_p / ((5 + tokens_of(ids)) / 6) ** alpha


def assert_same(decoded, expected):
    np.testing.assert_array_equal(decoded[0], expected[0])
    np.testing.assert_allclose(decoded[1], expected[1], atol=1e-4)


# --- Each of them ---

@pytest.fixture(scope='module', params=DECODERS)
def decoded(request):
    decoder, model, source = DECODERS[request.param], random_model(), sources()
    run = compiled(model, decoder)
    return decoder, model, run, source, *run(source)


def test_the_score_is_that_of_teacher_forcing(decoded):
    _, model, _, source, ids, log_p = decoded
    rows = tf.reshape(ids, [-1, LENGTH])
    expected = teacher_forced_scores(model, tf.repeat(source, len(rows) // len(source), axis=0), rows)
    assert log_p.dtype == 'float32' and ids.dtype == 'int32'
    np.testing.assert_allclose(tf.reshape(log_p, [-1]), expected, atol=1e-4)


def test_nothing_follows_the_end(decoded):
    ids = decoded[4].numpy()
    after = np.arange(LENGTH) >= tokens_of(ids)[..., None]
    assert 0 < after.mean() < 1 and (ids[after] == PADDING).all()
    assert len(np.unique(tokens_of(ids))) > 2


def test_a_row_depends_on_no_other(decoded):
    _, _, run, source, *expected = decoded
    ours = (np.arange(32) % 3 == 1)[:, None]
    mixed = run(tf.where(ours, source, tf.reverse(source, [0])))
    assert_same([value[1::3] for value in mixed], [value[1::3] for value in expected])
    assert_same(run(source[:7]), [value[:7] for value in expected])


def test_eagerly_the_same(decoded):
    decoder, model, _, source, *expected = decoded
    assert_same(write(decoder, model, source), expected)


@pytest.mark.slow
def test_compiled_by_xla_the_same(decoded):
    decoder, model, _, source, *expected = decoded
    assert_same(compiled(model, decoder, jit_compile=True)(source), expected)


def test_no_sentences(decoded):
    decoder, model, _, _, ids, log_p = decoded
    empty = write(decoder, model, tf.zeros([0, 6], tf.int32))
    assert [value.shape for value in empty] == [(0, *ids.shape[1:]), (0, *log_p.shape[1:])]


def test_nothing_that_a_tpu_cannot_run(decoded):
    graph = decoded[2].get_concrete_function(tf.TensorSpec([32, 6], tf.int32)).graph
    assert tpu_rules.violations(graph) == []


@pytest.mark.parametrize('policy', ['mixed_float16', 'mixed_bfloat16'])
@pytest.mark.parametrize('name', ['greedy', 'beam search'])
def test_half_precision(policy, name):
    model, source = random_model(dtype=policy), sources()
    ids, log_p = write(DECODERS[name], model, source)
    ids, log_p = (ids, log_p) if name == 'greedy' else (ids[:, 0], log_p[:, 0])
    assert log_p.dtype == 'float32'
    np.testing.assert_allclose(log_p, teacher_forced_scores(model, source, ids), rtol=0.02, atol=0.05)


@pytest.mark.parametrize('name', ['beam search', pytest.param('greedy', marks=pytest.mark.slow),
                                  pytest.param('sampling', marks=pytest.mark.slow)])
def test_a_saved_model_decodes_batches_of_any_size(name, tmp_path):
    decoder = DECODERS[name]
    module = tf.Module()
    module.model = random_model(num_layers=1)
    signature = tf.TensorSpec([None, 6], tf.int32)
    module.decode = tf.function(lambda source: write(decoder, module.model, source), [signature])
    beams = [4] if name == 'beam search' else []
    assert module.decode.get_concrete_function().structured_outputs[0].shape == (None, *beams, LENGTH)
    tf.saved_model.save(module, str(tmp_path / 'saved'))
    loaded = tf.saved_model.load(str(tmp_path / 'saved'))
    for source in (sources(7), sources(1)):
        assert_same(loaded.decode(source), write(decoder, module.model, source))


# --- Greedy decoding ---

def uncached_greedy(model, source, length):
    memory = model.encode(source_of(source))
    target, scores = np.zeros((len(source), length + 1), 'int32'), np.zeros(len(source))
    target[:, 0], ended = START, np.zeros(len(source), bool)
    for t in range(length):
        log_p = tf.nn.log_softmax(model.decode(target[:, :length], memory, source_of(source))[:, t]).numpy()  # [B, V]
        target[:, t + 1] = np.where(ended, PADDING, log_p.argmax(-1))
        scores += np.where(ended, 0, log_p.max(-1))
        ended |= target[:, t + 1] == END
    return target[:, 1:], scores


@pytest.mark.parametrize('options', [
    {'norm': 'pre', 'seed': 3}, {'norm': 'post', 'seed': 2}, {'share_embeddings': True, 'seed': 4}],
    ids=['pre', 'post', 'shared'])
def test_the_cache_changes_no_token_and_no_probability(options):
    model, source = random_model(**options), sources()
    expected = uncached_greedy(model, source, LENGTH)
    ended = (expected[0] == END).any(axis=1)
    assert 0 < ended.mean() < 1 and len(set(np.argmax(expected[0][ended] == END, axis=1))) > 1
    assert_same(compiled(model, decoding.greedy)(source), expected)


class Scripted:
    """Says END to sentence i at step `ends[i]`, another token until then, and counts its steps."""

    def __init__(self, ends):
        self.ends, self.steps = tf.constant(ends), 0

    def start_cache(self, x, length):
        return {}

    def decode_step(self, token, t, cache):
        self.steps += 1
        return tf.one_hot(tf.where(t == self.ends, END, 5), WORDS), cache


@pytest.mark.parametrize('ends, steps', [([0, 3, 1], 4), ([0, 0, 0], 1), ([0, 99, 1], LENGTH)])
def test_stops_when_every_sentence_has_ended(ends, steps):
    model = Scripted(ends)
    ids, scores = write(decoding.greedy, model, tf.zeros([3, 6], tf.int32))
    assert model.steps == steps and ids.shape == (3, LENGTH)
    expected = [([5] * end + [END] + [PADDING] * LENGTH)[:LENGTH] for end in ends]
    np.testing.assert_array_equal(ids, expected)
    tokens = np.minimum(np.array(ends) + 1, LENGTH)
    np.testing.assert_allclose(scores, tokens * tf.nn.log_softmax(tf.one_hot(5, WORDS))[5], rtol=1e-5)


# --- Beam search ---

def test_one_beam_is_greedy():
    model, source = random_model(), sources()
    ids, log_p = write(decoding.beam_search, model, source, beam_size=1)
    expected, scores = write(decoding.greedy, model, source)
    assert 0 < np.mean(tokens_of(expected) < LENGTH) < 1
    assert_same((ids[:, 0], log_p[:, 0]), (expected, scores))


def uncached_beam_search(log_probabilities, length, beams, alpha):
    """One sentence, without a cache and without stopping early -> [(tokens, log-probability)], the best first.

    log_probabilities: int32 [K, T] -> [K, T, V].
    """
    live, ended = [((), 0.)], []
    for t in range(length):
        target = np.full((beams, length), PADDING, 'int32')
        for row, (tokens, _) in zip(target, live):
            row[:t + 1] = START, *tokens
        longer = [((*tokens, word), score + p) for (tokens, score), row in zip(live, log_probabilities(target)[:, t])
                  for word, p in enumerate(row)]
        longer = sorted(longer, key=lambda hypothesis: -hypothesis[1])[:beams]
        ended += [hypothesis for hypothesis in longer if hypothesis[0][-1] == END]
        live = [hypothesis for hypothesis in longer if hypothesis[0][-1] != END]
    return sorted(ended + live, key=lambda each: -each[1] / ((5 + len(each[0])) / 6) ** alpha)[:beams]


@pytest.mark.parametrize('beams, alpha', [(2, 0.6), (4, 0.), (7, 2.)])
def test_beams_are_those_of_a_search_without_cache_or_early_stopping(beams, alpha):
    model, source = random_model(), sources(14)[5:]
    forward = tf.function(lambda source, target: tf.nn.log_softmax(model({**source_of(source), 'target': target})))
    ids, log_p = compiled(model, lambda *arguments: decoding.beam_search(*arguments, beams, alpha))(source)
    for row in range(len(source)):
        repeated = tf.repeat(source[row:row + 1], beams, axis=0)
        expected = uncached_beam_search(lambda target: forward(repeated, target).numpy(), LENGTH, beams, alpha)
        texts = [tuple(hypothesis[:size]) for hypothesis, size in zip(ids[row].numpy(), tokens_of(ids[row]))]
        assert texts == [tokens for tokens, _ in expected]
        np.testing.assert_allclose(log_p[row], [score for _, score in expected], atol=1e-4)


class FewWords(Transformer):
    """Has more words than it says: a beam, which is no wider than the vocabulary, can hold all that it may say."""

    SAID = (END, 4, 5, 6)

    def _logits(self, x):
        never = np.full(self.target_vocabulary_size, -1e9, 'float32')
        never[list(self.SAID)] = 0
        return super()._logits(x) + never


@pytest.mark.parametrize('alpha', [0., 0.6, 2.])
def test_a_beam_that_holds_everything_finds_the_best(alpha):
    beams, length = 64, 4
    model, source = random_model(FewWords, words=beams, num_layers=1), sources(7)
    stems = [stem for n in range(length) for stem in itertools.product(FewWords.SAID[1:], repeat=n)]
    cut = itertools.product(FewWords.SAID[1:], repeat=length)
    every = [(*stem, END, *[PADDING] * (length - 1 - len(stem))) for stem in stems] + list(cut)
    assert len(every) == 40 + 81
    ids, log_p = write(decoding.beam_search, model, source, beams, alpha, length=length)
    for row in range(len(source)):
        scores = teacher_forced_scores(model, tf.repeat(source[row:row + 1], len(every), axis=0), tf.constant(every))
        best = np.sort(penalised(scores.numpy(), np.array(every), alpha))[::-1]
        np.testing.assert_allclose(penalised(log_p[row], ids[row].numpy(), alpha), best[:beams], atol=1e-4)
        assert len({tuple(hypothesis) for hypothesis in ids[row].numpy()}) == beams


class Table:
    """Says each word with a probability [T, V] of its position alone, and counts its steps."""

    vocabulary_size = WORDS

    def __init__(self, probabilities):
        self.log_p, self.steps = tf.math.log(tf.constant(probabilities, tf.float32)), 0

    def start_cache(self, x, length, beams=1):
        return {}

    def decode_step(self, token, t, cache):
        self.steps += 1
        return tf.broadcast_to(self.log_p[t], [*token.shape, WORDS]), cache

    def reorder_cache(self, cache, parent):
        return cache


def says(**words):
    """[V] probabilities: that of END, that of word N as `wordN`, and the rest shared by the other words."""
    row = np.full(WORDS, (1 - sum(words.values())) / (WORDS - len(words)))
    for name, p in words.items():
        row[END if name == 'end' else int(name[-1])] = p
    return row


@pytest.mark.parametrize('alpha, steps', [(0., 2), (0.6, 2), (1.5, 3), (3., 8)])
def test_stops_as_soon_as_no_live_beam_can_win(alpha, steps):
    """After n steps the live beam has log(0.1 ** n), and the worse of the two that are kept log(0.08) over 7 / 6."""
    model = Table([says(end=0.8, word5=0.1)] * 8)
    attainable = [n * np.log(0.1) / (13 / 6) ** alpha for n in range(9)]
    assert steps == next(n for n in range(2, 9) if attainable[n] <= np.log(0.08) / (7 / 6) ** alpha or n == 8)
    ids, _ = write(decoding.beam_search, model, tf.zeros([1, 3], tf.int32), 2, alpha, length=8)
    assert model.steps == steps and tokens_of(ids).tolist() == [[1, 2]]


def test_a_later_better_hypothesis_replaces_a_kept_one():
    """Two have ended after two steps; the third to end is the best, by its length."""
    model = Table([says(end=0.3, word5=0.65), says(end=0.3, word5=0.65), says(end=0.98, word5=0.001)])
    ids, _ = write(decoding.beam_search, model, tf.zeros([1, 3], tf.int32), 2, length_penalty=3., length=3)
    assert ids[0].numpy().tolist() == [[5, 5, END], [5, END, PADDING]]


# --- Sampling ---

def draws(row, count=20_000, positions=2, **options):
    """int32 [count, positions] from a model that always has the same distribution [V]."""
    model = Table([row] * positions)
    ids, _ = write(decoding.sample, model, tf.zeros([count, 3], tf.int32), DRAWS, length=positions, **options)
    return ids.numpy()


ROW = np.array([0.3, 0.25, 0., 0.15, 0.12, 0.1, 0.05, 0.03])     # END is never said


@pytest.mark.parametrize('options, expected', [
    ({}, ROW), ({'temperature': 2.}, ROW ** 0.5), ({'temperature': 0.5}, ROW ** 2),
    ({'top_k': 3}, ROW * (ROW >= 0.15)), ({'top_k': 99}, ROW), ({'top_p': 0.6}, ROW * (ROW >= 0.15)),
    ({'top_k': 5, 'top_p': 0.7, 'temperature': 2.}, ROW ** 0.5 * (ROW >= 0.12))],
    ids=['all', 'warm', 'cold', 'top_k', 'large top_k', 'top_p', 'all three'])
def test_samples_follow_the_distribution(options, expected):
    """The pairs of two positions, which must not depend on each other either."""
    ids = draws(ROW, **options)
    pairs = np.outer(expected, expected).ravel() / expected.sum() ** 2
    counts = np.bincount(ids[:, 0] * WORDS + ids[:, 1], minlength=WORDS ** 2)
    assert counts[pairs == 0].sum() == 0
    assert scipy.stats.chisquare(counts[pairs > 0], pairs[pairs > 0] * len(ids)).pvalue > 0.001


@pytest.mark.parametrize('top_p, kept', [(1e-6, 1), (0.5, 1), (0.51, 2), (0.75, 2), (0.76, 3), (1., 4)])
def test_top_p_is_the_smallest_set(top_p, kept):
    row = np.zeros(WORDS)
    row[[7, 4, 6, 0]] = [0.5, 0.25, 0.125, 0.125]       # exact in binary
    assert set(draws(row, positions=1, top_p=top_p)[:, 0]) == {7, 4, 0, 6} if kept == 4 else set([7, 4, 0][:kept])


def test_of_equal_tokens_top_k_keeps_the_first():
    assert set(draws(np.full(WORDS, 1 / WORDS), positions=1, top_k=3)[:, 0]) == {0, 1, 2}


def test_the_likeliest_token_only_is_greedy():
    model, source = random_model(), sources()
    assert_same(write(decoding.sample, model, source, DRAWS, top_k=1), write(decoding.greedy, model, source))


@pytest.mark.parametrize('options', [{'top_p': 1e-9}, {'temperature': 0.005}, {'temperature': 1e-44}], ids=str)
def test_so_are_a_small_top_p_and_temperature(options):
    assert (draws(ROW, **options) == ROW.argmax()).all()


def test_another_seed_draws_something_else():
    def draw(seed):
        return write(decoding.sample, Table([ROW] * LENGTH), tf.zeros([32, 3], tf.int32), Draws(seed))[0].numpy()
    np.testing.assert_array_equal(draw(1), draw(1))
    assert len(np.unique(np.concatenate([draw(1), draw(2), draw(3)]), axis=0)) == 3 * 32


# --- Errors ---

@pytest.mark.parametrize('decoder, options, message', [
    (decoding.beam_search, {'beam_size': 0}, '`beam_size` must be from 1 to 8, the number of words. Received: '
                                             'beam_size=0'),
    (decoding.beam_search, {'beam_size': 9}, '`beam_size` must be from 1 to 8, the number of words. Received: '
                                             'beam_size=9'),
    (decoding.beam_search, {'length_penalty': -0.1}, '`length_penalty` must be at least 0. Received: '
                                                     'length_penalty=-0.1'),
    (decoding.sample, {'temperature': 0}, '`temperature` must be above 0. Received: temperature=0'),
    (decoding.sample, {'temperature': float('nan')}, '`temperature` must be above 0. Received: temperature=nan'),
    (decoding.sample, {'top_k': -1}, '`top_k` must not be negative. Received: top_k=-1'),
    (decoding.sample, {'top_p': 0.}, '`top_p` must be above 0 and at most 1. Received: top_p=0.0'),
    (decoding.sample, {'top_p': 1.1}, '`top_p` must be above 0 and at most 1. Received: top_p=1.1'),
])
def test_bad_arguments(decoder, options, message):
    draws = [DRAWS] if decoder is decoding.sample else []
    with pytest.raises(UserError) as error:
        write(decoder, Table([ROW]), tf.zeros([1, 3], tf.int32), *draws, length=1, **options)
    assert str(error.value) == message
