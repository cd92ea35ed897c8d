"""How a model writes: greedy decoding, beam search and sampling, in the graph.

Each is a loop over positions that carries the model's key/value cache. All shapes are static but for the batch's, and
nothing runs on the host, so that the same lines run eagerly, in a tf.function, compiled by XLA, on a TPU, and in a
SavedModel.

A model has `vocabulary_size` and
    start_cache(x, length, beams)     the cache for targets of `length` tokens; an encoder-decoder encodes its source
    decode_step(token, t, cache)      -> logits, cache
    reorder_cache(cache, parent)      -> cache
as models/transformer.py. Letters in the shapes: B examples, T target positions, K beams, V words.
"""

import math

import tensorflow as tf

from errors import UserError

NEVER = -1e30     # log-probability of a hypothesis that is not there; finite, for ONNX makes NaN of an infinite one


def greedy(model, x, length, special):
    """Takes the likeliest next token until END, for all examples at once.

    Args:
        x: the model's inputs, a tensor or a dict of tensors [B, ...].
        length: static T; a translation that has not ended by then is cut.
        special: the target tokenizer's special ids, see data/tokenizers/special.py.

    Returns:
        int32 [B, T]: tokens, END, PADDING; and float32 [B], the summed log-probability of the tokens, END included.
    """
    return _one_by_one(model, x, length, special,
                       lambda log_p, t: tf.argmax(log_p, axis=-1, output_type=tf.int32))


def sample(model, x, length, special, draws, temperature=1., top_k=0, top_p=1.):
    """Draws each next token until END, for all examples at once.

    Its random numbers are a function of (seed, row, position), the same from XLA as without it.

    Args:
        x, length, special: as `greedy`.
        draws: a draws.Draws.
        temperature: float that divides the logits. Near 0 it is `greedy`, at 1 the model's own distribution.
        top_k: integer; only the `top_k` likeliest tokens can be drawn, of equals the first. 0 is all.
        top_p: float in (0, 1]; only the likeliest tokens can be drawn, as few as have a probability of `top_p`
            together, after the temperature and `top_k`; one at least. arXiv:1904.09751, section 3.1.

    Returns:
        int32 [B, T] and float32 [B], as `greedy`: the log-probability is the model's own, whatever was drawn from.

    Raises:
        UserError: a bad `temperature`, `top_k` or `top_p`.
    """
    check_sampling(temperature, top_k, top_p)
    uniform = draws.uniform('sample', (_batch_size(x), length))                         # [B, T]
    return _one_by_one(model, x, length, special, lambda log_p, t: _draw(
        log_p, tf.gather(uniform, t, axis=1), temperature, top_k, top_p))


def beam_search(model, x, length, special, beam_size=4, length_penalty=0.6):
    """The best hypotheses for each sentence, by log-probability over the length penalty of arXiv:1609.08144.

    A hypothesis is a sequence that ends in END, or is cut at `length`. Each step takes the K likeliest continuations
    of a sentence's live beams. Those that end leave the beam; the best K of all that have ended are kept, and never
    continued. So one beam is greedy decoding, and K beams are all that there is to search where there are no more than
    K prefixes of a length. (tensor2tensor takes the 2 K likeliest, so that always K go on; its one beam is not greedy.)

    A sentence is done when no live beam can beat its worst of K kept hypotheses. A beam's log-probability only falls
    and the penalty grows with the length, so one of log-probability l can reach no more than l / penalty(T).

    Args:
        x, length, special: as `greedy`.
        beam_size: static K, from 1 to V.
        length_penalty: alpha of equation 14 of the paper, at least 0; 0 is none. arXiv:1706.03762 has 0.6 and 4 beams.

    Returns:
        int32 [B, K, T], the best first: tokens, END, PADDING; and float32 [B, K], their log-probabilities, as `greedy`.

    Raises:
        UserError: a bad `beam_size` or `length_penalty`.
    """
    check_beam_search(beam_size, length_penalty, model.vocabulary_size)

    def step(t, token, ids, live, kept, cache):
        logits, cache = model.decode_step(token, t, cache)                              # [B, K, V]
        log_p, parent, token = _likeliest(live[:, :, None] + tf.nn.log_softmax(logits))             # [B, K]
        ids = tf.gather(ids, parent, batch_dims=1)                                      # [B, K, T]
        ids = tf.where(tf.range(length) == t, token[:, :, None], ids)
        ended = token == special.end
        kept = _best(kept, (ids, log_p, tf.where(ended, _score(log_p, t + 1, length_penalty), NEVER)))
        live = tf.where(ended, NEVER, log_p)
        attainable = _score(tf.reduce_max(live, axis=1), length, length_penalty)        # [B]
        done = attainable <= tf.reduce_min(kept[2], axis=1)
        return t + 1, token, ids, tf.where(done[:, None], NEVER, live), kept, model.reorder_cache(cache, parent)

    _, _, ids, live, kept, _ = tf.while_loop(
        lambda t, token, ids, live, kept, cache: tf.reduce_any(live > NEVER), step,
        _start_beams(model, x, length, special, beam_size), maximum_iterations=length)
    ids, log_p, _ = _best(kept, (ids, live, _score(live, length, length_penalty)))      # with those that are cut
    return ids, log_p


def check_beam_search(beam_size, length_penalty, vocabulary_size):
    if not 1 <= beam_size <= vocabulary_size:
        raise UserError(f'`beam_size` must be from 1 to {vocabulary_size}, the number of words. '
                        f'Received: beam_size={beam_size}')
    if not 0 <= length_penalty < math.inf:
        raise UserError(f'`length_penalty` must be at least 0. Received: length_penalty={length_penalty}')


def check_sampling(temperature=1., top_k=0, top_p=1.):
    if not 0 < temperature < math.inf:
        raise UserError(f'`temperature` must be above 0. Received: temperature={temperature}')
    if top_k < 0:
        raise UserError(f'`top_k` must not be negative. Received: top_k={top_k}')
    if not 0 < top_p <= 1:
        raise UserError(f'`top_p` must be above 0 and at most 1. Received: top_p={top_p}')


def _one_by_one(model, x, length, special, choose):
    """The loop of `greedy` and `sample`: choose(log_p [B, V], t) -> token int32 [B]."""
    batch = _batch_size(x)

    def step(t, token, ids, scores, ended, cache):
        logits, cache = model.decode_step(token, t, cache)
        log_p = tf.nn.log_softmax(logits)                                               # [B, V]
        token = choose(log_p, t)
        scores += tf.where(ended, 0., tf.gather(log_p, token, batch_dims=1))
        token = tf.where(ended, special.pad, token)
        ids = tf.where(tf.range(length) == t, token[:, None], ids)                      # [B, T], static in each step
        return t + 1, token, ids, scores, ended | (token == special.end), cache

    start = (tf.constant(0), tf.fill([batch], special.start), tf.fill([batch, length], special.pad), tf.zeros([batch]),
             tf.zeros([batch], tf.bool), model.start_cache(x, length))
    _, _, ids, scores, _, _ = tf.while_loop(
        lambda t, token, ids, scores, ended, cache: ~tf.reduce_all(ended), step, start, maximum_iterations=length)
    return ids, scores


def _batch_size(x):
    return tf.shape(tf.nest.flatten(x)[0])[0]


def _draw(log_p, uniform, temperature, top_k, top_p):
    """log_p [B, V], uniform [B] in (0, 1) -> int32 [B]: the inverse of the cumulative distribution, likeliest first."""
    words = log_p.shape[-1]
    log_p, tokens = tf.math.top_k(log_p, min(top_k or words, words))                    # [B, k], falling
    # The likeliest at 0 before the division, which is by no number that float32 does not have.
    p = tf.nn.softmax((log_p - log_p[:, :1]) / max(temperature, 1e-30))
    kept = tf.cumsum(p, axis=1, exclusive=True) < top_p
    up_to = tf.cumsum(tf.where(kept, p, 0.), axis=1)
    drawn = _count(up_to <= uniform[:, None] * up_to[:, -1:])
    # XLA sums in another order for each element, so that even after the last token that is kept a sum may grow.
    return tf.gather(tokens, tf.minimum(drawn, _count(kept) - 1), batch_dims=1)


def _count(true):
    return tf.reduce_sum(tf.cast(true, tf.int32), axis=1)    # [B, n] -> [B]


def _start_beams(model, x, length, special, beams):
    """The loop variables of `beam_search`: t, token, ids [B, K, T] and log_p [B, K] of live beams, kept, cache."""
    batch = _batch_size(x)
    ids, nothing = tf.fill([batch, beams, length], special.pad), tf.fill([batch, beams], NEVER)
    live = tf.where(tf.range(beams) == 0, 0., nothing)       # all beams are the same yet: only one may go on
    return (tf.constant(0), tf.fill([batch, beams], special.start), ids, live, (ids, nothing, nothing),
            model.start_cache(x, length, beams))


def _score(log_p, tokens, alpha):
    """A log-probability over the penalty of equation 14 of arXiv:1609.08144, without its coverage. END is a token."""
    penalty = ((5. + tf.cast(tokens, tf.float32)) / 6.) ** alpha
    return tf.where(log_p > NEVER, log_p / penalty, NEVER)


def _likeliest(log_p):
    """[B, K, V] -> the K largest, and the beam and the token of each, all [B, K]."""
    _, beams, words = log_p.shape
    log_p, best = tf.math.top_k(tf.reshape(log_p, [-1, beams * words]), beams)
    return log_p, best // words, best % words


def _best(kept, more):
    """The K best by score of twice K hypotheses (ids [B, K, T], log_p [B, K], scores [B, K]); of equals, those kept."""
    ids, log_p, scores = (tf.concat(pair, axis=1) for pair in zip(kept, more))
    scores, best = tf.math.top_k(scores, kept[2].shape[1])
    return tf.gather(ids, best, batch_dims=1), tf.gather(log_p, best, batch_dims=1), scores
