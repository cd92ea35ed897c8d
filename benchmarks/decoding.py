"""Beam search and greedy decoding with the key/value cache and without it, as served and with XLA, in turns.

    python -m benchmarks.decoding --size=tiny

All loops are those of tasks/decoding.py. Without the cache, the model reads again at each position what is written:
without XLA the positions so far, and with XLA, whose shapes are static, all of them. It computes the logits of the last
only, as with the cache. The ratios are of the loop without the cache to that with it: without XLA, with XLA, and of
the faster of each.

The weights are random, and no sentence ends before `--length`: END's embedding is -1 everywhere, and the last LayerNorm
adds 1 to each of its d_model components, whose sum without that is 0, so that the logit of END is always -d_model.
"""

import statistics
import time

from absl import flags

import cli
from errors import RunError, UserError, lookup

VOCABULARY, BEAMS = 8000, 4


def main():
    size, turns, batch_size, length = (flags.FLAGS[n].value for n in ('size', 'turns', 'batch_size', 'length'))
    for name, value in (('turns', turns), ('batch_size', batch_size), ('length', length)):
        if value < 1:
            raise UserError(f'`{name}` must be at least 1. Received: {name}={value}')
    with cli.quiet_tensorflow():
        import tensorflow as tf
        from models.transformer import SIZES
    from benchmarks.report import write
    lookup(SIZES, size, 'size')
    source = tf.random.stateless_uniform([batch_size, length], [0, 0], 4, VOCABULARY, tf.int32)
    record = {'batch_size': batch_size, 'length': length, 'vocabulary_size': VOCABULARY, 'beams': BEAMS}
    for search, loops in searches(size, length).items():
        seconds, equal = measure(loops, source, turns)
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        record[search] = {'ratio': ratios(medians), 'medians': medians, 'seconds_a_batch': seconds,
                          'sentences_as_with_cache': equal}
        for name, value in medians.items():
            spread = max(seconds[name]) - min(seconds[name])
            print(f'{size:<6} {search:<12} {name:<14} {value:8.3f} s per batch of {batch_size}, range {spread:.3f}; '
                  f'{equal[name]:.0%} of the sentences as with the cache')
        print(f'{size:<6} {search:<12} without the cache / with it: {record[search]["ratio"]}')
    write(f'decoding_{size}', record)


def ratios(seconds):
    """{loop: seconds} -> {what is compared: seconds without the cache / with it}."""
    cached, uncached = ([seconds[f'{kind}{xla}'] for xla in ('', ', xla')] for kind in ('cache', 'no cache'))
    compared = {'plain': (uncached[0], cached[0]), 'xla': (uncached[1], cached[1]),
                'faster of each': (min(uncached), min(cached))}
    return {name: round(a / b, 2) for name, (a, b) in compared.items()}


def searches(size, length):
    """{search: {loop: function of source [B, S] -> ids [B, ...]}}."""
    import keras
    import tensorflow as tf

    from benchmarks.uncached import Uncached
    from data.tokenizers.special import PLAIN
    from models.transformer import transformer
    from tasks import decoding
    keras.utils.set_random_seed(0)
    model = transformer(VOCABULARY, VOCABULARY, size)
    table = model.target_embedding.table
    table.assign(tf.tensor_scatter_nd_update(table, [[PLAIN.end]], -tf.ones([1, model.d_model])))
    model.decoder_norm.beta.assign(tf.ones([model.d_model]))
    models = {'cache': (model, False), 'cache, xla': (model, True),
              'no cache': (Uncached(model, growing=True), False),
              'no cache, xla': (Uncached(model, growing=False), True)}

    def write(search, model, source):
        x = {'source': source, 'source_mask': source != PLAIN.pad}
        return search(model, x, length, PLAIN)[0]

    def loops(search):
        return {name: tf.function(lambda source, model=model: write(search, model, source), jit_compile=jit)
                for name, (model, jit) in models.items()}

    return {'beam search': loops(lambda *arguments: decoding.beam_search(*arguments, beam_size=BEAMS)),
            'greedy': loops(decoding.greedy)}


def measure(loops, source, turns):
    """Returns {loop: seconds of each turn}, and {loop: share of sentences that are as with the cache}.

    Raises:
        RunError: a sentence ended.
    """
    from data.tokenizers.special import PLAIN
    seconds, written = {name: [] for name in loops}, {}
    for turn in range(turns + 1):
        for name, decode in loops.items():
            started = time.perf_counter()
            written[name] = decode(source).numpy()
            if turn:     # the first traces and compiles
                seconds[name].append(time.perf_counter() - started)
    if any((ids == PLAIN.end).any() for ids in written.values()):
        raise RunError('a sentence ended, so that the loops did not take all their steps')
    rows = {name: ids.reshape(len(source), -1) for name, ids in written.items()}
    return seconds, {name: float((ids == rows['cache']).all(axis=1).mean()) for name, ids in rows.items()}


def define():
    flags.DEFINE_string('size', 'tiny', 'Size of the Transformer: tiny, small, base or big.')
    flags.DEFINE_integer('turns', 5, 'Batches that each loop decodes.')
    flags.DEFINE_integer('batch_size', 16, 'Sentences per batch.')
    flags.DEFINE_integer('length', 64, 'Tokens of each source and of each translation.')


if __name__ == '__main__':
    cli.run(main, define)
