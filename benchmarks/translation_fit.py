"""The two sides of benchmarks/translation.py: python -m benchmarks.translation_fit PART RUN OUT SECONDS

    ours   what the run in the folder RUN has trained, translated greedily too
    fit    as Keras's own translation example does it: keras-hub's layers, rows padded to the longest sentence allowed,
           and `model.fit` for SECONDS
"""

import importlib.metadata
import json
import os
import pathlib
import sys
import time

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import keras  # noqa: E402
import keras_hub  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from benchmarks.translation import RECIPE  # noqa: E402
from data.rows import prepared  # noqa: E402
from experiment import parts, trained  # noqa: E402
from experiment.workdir import Workdir  # noqa: E402
from models.transformer import SIZES  # noqa: E402
from recipes import load  # noqa: E402
from tasks.scores.translation import corpus_scores  # noqa: E402
from training import randomness  # noqa: E402
from training.evaluation import EvaluationStep, Evaluator  # noqa: E402
from training.trainer import make_schedule  # noqa: E402

# Sentences per step. After 110 s beside other work, 64 with our recipe's peak rate, 3e-3, had a lower validation loss
# than 64 and 32 with 1e-3 and 128 with 2e-3. With 297, as many as our rows hold, a step took 3.5 s: few updates.
BATCH = 64
DECODED = 256      # sentences at a time


def ours(run, _):
    workdir = Workdir(run)
    recipe, results = workdir.recipe(), workdir.results()
    dataset, task = parts.open_data(recipe, tokenizer=workdir.tokenizer())
    rows = task.rows(dataset.train, training=True)
    tokens = results['steps'] * recipe.training.batch_size * 2 * recipe.data.max_length * (1 - rows.padding_share)
    return {'scores': results['eval'], 'greedy': _greedily(run), 'steps': results['steps'], 'tokens': tokens,
            'seconds': results['train_seconds'], 'padding_share': rows.padding_share, 'recipe': results['recipe']}


def _greedily(run):
    recipe, dataset, task, model, _ = trained.load(run, beam_size=1)
    evaluate = Evaluator(tf.distribute.get_strategy(), EvaluationStep(model, task),
                         *parts.evaluation_batches(task, dataset.test, recipe.training.batch_size))
    return evaluate()


def fit(run, seconds):
    workdir = Workdir(run)
    recipe = workdir.resumed_recipe(load(RECIPE)[1])      # of no run yet for `--only_baseline`
    training = recipe.training
    dataset, task = parts.open_data(recipe, tokenizer=workdir.tokenizer())
    source, target = prepared(task.rows(dataset.train)).values()                      # int32 [N, S], [N, T]
    keras.utils.set_random_seed(training.seed)
    model = build(recipe, task.sizes['target_vocabulary_size'])
    optimizer = keras.optimizers.Adam(make_schedule(training, 0), beta_2=training.beta_2, epsilon=training.epsilon,
                                      global_clipnorm=training.clip_norm)
    model.compile(optimizer=optimizer, loss=Smoothed(recipe.task.label_smoothing, reduction='mean_with_sample_weight'))
    stop = StopAfter(seconds)
    model.fit(batches(source, target, BATCH, task.target.special), epochs=1000, callbacks=[stop], verbose=2)
    mean = (np.count_nonzero(source) + np.count_nonzero(target)) / len(source)
    answers = translate(model, dataset.test, task)
    references = dataset.test.gather(tf.range(dataset.test.num_examples, dtype=tf.int64))['target'].numpy()
    scores = corpus_scores(answers, [text.decode() for text in references], task.language)
    return {'scores': scores, 'steps': stop.steps, 'tokens': stop.steps * BATCH * mean, 'seconds': stop.seconds,
            'batch_size': BATCH, 'parameters': model.count_params(),
            'keras_hub': importlib.metadata.version('keras-hub'),
            'padding_share': 1 - mean / (source.shape[1] + target.shape[1])}


def build(recipe, words):
    """Encoder and decoder of keras-hub, with the sizes of ours; one table for both languages and the logits."""
    size = SIZES[recipe.model.size]
    layer = {'intermediate_dim': size['d_ff'], 'num_heads': size['heads'], 'dropout': size['dropout'],
             'normalize_first': True}
    embed = keras_hub.layers.TokenAndPositionEmbedding(
        words, recipe.data.max_length, size['d_model'], tie_weights=True, mask_zero=True,
        embeddings_initializer=keras.initializers.RandomNormal(stddev=size['d_model'] ** -0.5))
    source, target = (keras.Input((None,), dtype='int32', name=name) for name in ('source', 'target'))
    memory, x = (keras.layers.Dropout(size['dropout'])(embed(ids)) for ids in (source, target))
    for _ in range(size['num_layers']):
        memory = keras_hub.layers.TransformerEncoder(**layer)(memory)
    memory = keras.layers.LayerNormalization()(memory)
    for _ in range(size['num_layers']):
        x = keras_hub.layers.TransformerDecoder(**layer)(x, memory)
    x = keras.layers.LayerNormalization()(x)
    return keras.Model({'source': source, 'target': target}, embed.token_embedding(x, reverse=True))


class Smoothed(keras.losses.Loss):
    """Cross-entropy of logits with label smoothing, without a one-hot tensor, as ours."""

    def __init__(self, smoothing, **kwargs):
        super().__init__(**kwargs)
        self._smoothing = smoothing

    def call(self, y_true, y_pred):
        hard = keras.ops.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)
        uniform = keras.ops.logsumexp(y_pred, axis=-1) - keras.ops.mean(y_pred, axis=-1)
        return (1 - self._smoothing) * hard + self._smoothing * uniform


def batches(source, target, batch_size, special):
    read = special.shifted(target).numpy()
    examples = ({'source': source, 'target': read}, target, (target != special.pad).astype('float32'))
    return (tf.data.Dataset.from_tensor_slices(examples).shuffle(len(source), seed=0)
            .batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE))


class StopAfter(keras.callbacks.Callback):
    """Ends `fit` at the first step after some seconds; its compilation counts."""

    def __init__(self, limit):
        super().__init__()
        self._limit, self.steps, self.seconds = limit, 0, 0.

    def on_train_begin(self, logs=None):
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.steps, self.seconds = self.steps + 1, time.perf_counter() - self._start
        self.model.stop_training = self.seconds >= self._limit


def translate(model, source, task):
    """Greedy translations of all sentences of a source. Without a cache, on as few positions as are needed."""
    step = tf.function(lambda source, target: tf.argmax(model({'source': source, 'target': target})[:, -1], axis=-1,
                                                        output_type=tf.int32), reduce_retracing=True)
    texts = source.gather(tf.range(source.num_examples, dtype=tf.int64))['source']
    ids, special = task.source(texts).numpy(), task.target.special
    answers = np.zeros([len(ids), task.target.length], np.int32)
    order = np.argsort(np.count_nonzero(ids, axis=1), kind='stable')
    for rows in np.split(order, range(DECODED, len(order), DECODED)):
        longest = np.count_nonzero(ids[rows], axis=1).max()
        target = np.full([len(rows), 1], special.start, np.int32)
        while target.shape[1] <= task.target.length and not (target == special.end).any(axis=1).all():
            token = step(tf.constant(ids[rows, :longest]), tf.constant(target)).numpy()
            target = np.concatenate([target, token[:, None]], axis=1)
        answers[rows, :target.shape[1] - 1] = target[:, 1:]      # decoding stops at the first END
    return [text.decode() for text in task.decode(answers).numpy()]


def main(part, run, out, seconds):
    if part == 'ours':
        randomness.make_deterministic()
    measured = {'ours': ours, 'fit': fit}[part](run, float(seconds))
    pathlib.Path(out).write_text(json.dumps(measured))


if __name__ == '__main__':
    main(*sys.argv[1:])
