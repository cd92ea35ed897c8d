"""Runs on 1 to 8 replicas, for the equality tests: python -m tests.distributed WHAT DEVICES OUT [NAMES]

    WHAT      cases (one small model, many ways to train it) or models (those of the documents, on their data)
    DEVICES   N virtual devices, or WxN: W workers of N devices each
    OUT       folder; each worker writes what it has after each run to OUT/WORKER.npz

A process for each, because a failed collective poisons its process, and logical devices are fixed at its start.
"""

import functools
import json
import os
import pathlib
import sys
import tempfile

import keras
import numpy as np
import tensorflow as tf

import recipes
from data.source import Subset, Tensors
from data.sources.number_words import chinese, english
from experiment import parts
from experiment.workdir import Workdir
from models import build as architecture
from models.batch_norm import BatchNormalization
from models.dropout import Dropout
from settings import Training
from strategies import cluster, selection
from strategies.workers import launch
from tasks.task import Task, weighted
from training import randomness
from training.trainer import Trainer

B, F = 16, 4
ANSWERED = 3 * B - 5       # examples that are evaluated; the last batch is padded


class Squares(Task):
    """Mean squared error whose weights are uneven: the second half of the batch is mostly padding."""
    name, training_metrics = 'squares', ('mae',)

    def __init__(self):
        self.zeros = tf.zeros([200])      # which steps read and do not change; a smaller one would be in the graph

    def loss(self, y, outputs, weights, training=False):
        return weighted(tf.square(tf.cast(outputs[:, 0], tf.float32) - y), weights)

    def metrics(self, y, outputs, weights):
        return {'mae': weighted(tf.abs(tf.cast(outputs[:, 0], tf.float32) - y) + tf.reduce_sum(self.zeros), weights)}

    def evaluation_totals(self, model, x, y, weights, real):
        totals = super().evaluation_totals(model, x, y, weights, real)
        table = tf.einsum('bi,bj,b->ij', tf.round(x), tf.round(x), real)
        return {**totals, 'table': (table, tf.ones_like(table))}

    def results(self, totals):
        table = {'table': np.asarray(totals['table'][0]).tolist()} if 'table' in totals else {}
        return {**super().results({name: total for name, total in totals.items() if name != 'table'}), **table}

    def answers(self, model, x):
        return {'integers': tf.cast(tf.round(1000 * x), tf.int32), 'floats': x, 'positive': x > 0,
                'long': tf.cast(tf.round(1e12 * tf.cast(x, tf.float64)), tf.int64), 'row': tf.cast(x[:, 0], tf.float64)}

    def compare(self, answers, source):
        return {f'answers/{name}': answer for name, answer in answers.items()}


def build(batch_norm):
    keras.utils.set_random_seed(1)
    norm = BatchNormalization if batch_norm else keras.layers.LayerNormalization
    # BatchNorm takes the mean away, so a bias before it has a gradient of rounding noise, which Adam would blow up.
    dense = keras.layers.Dense(32, name='a', kernel_regularizer='l2', use_bias=not batch_norm)
    second = [keras.layers.Dense(8, name='a_2', use_bias=False), norm(name='n_2')] if batch_norm else []
    return keras.Sequential([keras.layers.Input((F,)), dense,
                             norm(name='n'), keras.layers.ReLU(name='r'), Dropout(0.5, name='d'), *second,
                             keras.layers.Dense(1, name='b', dtype='float32')], name='m')


def slices(start_step, spoil=None):
    """Batches computed from the step; `spoil` is a step, or several, whose row 13 is not finite."""
    spoilt = tf.constant([] if spoil is None else spoil if np.iterable(spoil) else [spoil], tf.int64)

    def dataset_fn(context=tf.distribute.InputContext()):
        replicas = context.num_replicas_in_sync
        b, local = B // replicas, replicas // context.num_input_pipelines

        def batch(element):
            step, replica = element // local, context.input_pipeline_id * local + element % local
            x = tf.random.stateless_uniform([B, F], seed=tf.stack([step, 5]))
            bad = tf.one_hot(13, B)[:, None] * tf.where(tf.reduce_any(step == spoilt), 1., 0.)
            x = tf.where(bad > 0, float('inf'), x)
            weights = tf.where(tf.range(B) % 5 + tf.cast(step % 3, tf.int32) < 4, 1., 0.)
            weights *= tf.where(tf.range(B) < B // 2, 1., tf.where(tf.range(B) % 2 == 0, 0., 1.))
            y = tf.reduce_sum(x, axis=1)
            rows = slice(None) if replicas == 1 else None
            part = [t if rows else t[replica * b:replica * b + b] for t in (x, y, weights)]
            return tuple(tf.ensure_shape(t, [b, *t.shape[1:]]) for t in part)
        return tf.data.Dataset.counter(start_step * local).map(batch)
    return dataset_fn


def evaluated_slices(context=tf.distribute.InputContext()):
    """The slices of training, every row of which counts as an example."""
    return slices(0)(context).map(lambda x, y, weights: (x, y, weights, tf.ones_like(weights)))


def build_resnet():
    """A ResNet of 21 BatchNormalizations on images of 8x8, made of 4 numbers."""
    keras.utils.set_random_seed(1)
    image = [keras.layers.Input((F,)), keras.layers.Reshape((2, 2, 1)), keras.layers.UpSampling2D(4)]
    return keras.Sequential([*image, architecture('resnet', {'input_shape': (8, 8, 1), 'outputs': 1}, width=4)])


def run(devices, jit='off', spoil=None, steps=6, batch_norm=False, model=None, **overrides):
    training = Training(batch_size=B, steps=steps, **{'optimizer': 'adamw', 'learning_rate': 0.05, 'weight_decay': 0.1,
                                                      'clip_norm': 0.3, 'ema': 0.9, **overrides})
    task = Squares()
    trainer = Trainer(training, devices, task, model or (lambda: build(batch_norm)), total_steps=steps,
                      workdir='unused', jit=jit)
    runner = trainer.runner(lambda start: slices(start, spoil), 0)
    return trainer, task.results(runner(steps).totals)


def copies(trainer):
    """Every replica's copy of every variable of the state."""
    return {name: [np.array(v) for v in getattr(variable, 'values', (variable,))]
            for name, variable in trainer.state.variables.items()}


SGD = {'optimizer': 'sgd', 'momentum': 0.9, 'nesterov': True, 'learning_rate': 0.02}
CASES = {
    'adamw, clip, decay, ema, dropout, regulariser, uneven weights': {},
    '8 micro-batches': {'accumulate': 8},
    'xla': {'jit': 'on'},
    # Without Adam, which would blow up the rounding of the smallest gradients.
    'batch norm': {'batch_norm': True, **SGD},
    'resnet': {'model': build_resnet, **SGD},
    'sgd': SGD,
    'a row that is not finite': {'spoil': 2},
    'batch norm, a row that is not finite': {'spoil': 2, 'batch_norm': True, **SGD},
    # In micro-batches, or whether a float16 sum overflows would depend on how many rows a replica has.
    'float16, a row that is not finite': {'spoil': 2, 'precision': 'float16', 'accumulate': 8, **SGD},
    'bfloat16': {'precision': 'bfloat16', **SGD},
}


def cases(devices, *names):
    """{name: results} of the small model."""
    out = {}
    for name in names or CASES:
        case = CASES[name]
        policies = {'float16': 'mixed_float16', 'bfloat16': 'mixed_bfloat16'}
        keras.config.set_dtype_policy(policies.get(case.get('precision'), 'float32'))
        trainer, values = run(devices, **case)
        out[name] = {**state(trainer), **{f'value/{key}': value for key, value in values.items()}}
        if devices.name == 'multiworker':
            out[name]['collectives'] = collectives(trainer, slices(0))
        if name == '8 micro-batches':
            source = Tensors(x=np.zeros(ANSWERED))
            values = trainer.evaluator(evaluated_slices, -(-ANSWERED // B), source)()
            out[name].update({f'evaluation/{key}': value for key, value in values.items()})
    return out


# Of 64x64 pixels and by SGD: of 32x32, the last group norms see two numbers, and multiply what rounding leaves.
SCENES = {'dataset': 'digit_scenes', 'image_size': 64, 'width': 4, 'norm': 'group', 'batch_size': 16, 'steps': 4,
          'warmup_steps': 2, 'optimizer': 'sgd', 'learning_rate': 1e-3, 'momentum': 0.9}
# By SGD: biases of keys, and of what a softmax follows, have gradients that are rounding, of which Adam makes steps.
BERT = {'num_layers': 1, 'd_model': 16, 'd_ff': 32, 'heads': 2, 'size': None, 'batch_size': 16, 'steps': 5,
        'warmup_steps': 2, 'optimizer': 'sgd', 'learning_rate': 1e-2, 'momentum': 0.9}
MODELS = {
    'mlp': {'batch_size': 64, 'steps': 10, 'augment': 'shift', 'ema': 0.9, 'clip_norm': 1.},
    'cnn': {'batch_size': 32, 'steps': 6},
    'lstm': {'batch_size': 32, 'steps': 6, 'augment': 'shift'},
    'resnet': {'dataset': 'digits', 'image_size': 8, 'width': 4, 'norm': 'group', 'batch_size': 16, 'steps': 4,
               'warmup_steps': 2, 'learning_rate': 1e-3},
    'detection': {'recipe': 'detector_fashion_scenes', **SCENES},
    'segmentation': {'recipe': 'unet_fashion_scenes', **SCENES},
    'transformer': {'batch_size': 16, 'steps': 5, 'warmup_steps': 2},
    # Not on the recipe's own data, which are this machine's: the rounding differs with them.
    'packed': {'recipe': 'transformer_gettext_de', 'dataset': 'numbers', 'vocabulary_size': 300, 'batch_size': 16,
               'steps': 5, 'beam_size': 2},
    'regression': {'recipe': 'mlp_diabetes', 'batch_size': 64, 'steps': 10},
    'words': {'recipe': 'lstm_sst2', 'dataset': 'moods', 'batch_size': 32, 'steps': 6, 'units': 8},
    'hidden words': {'recipe': 'bert_mlm_pydoc', 'dataset': 'moods', 'vocabulary_size': 60, 'max_length': 16, **BERT},
    'questions': {'recipe': 'bert_squad', 'dataset': 'answers', 'vocabulary_size': 60, 'max_length': 24,
                  'question_length': 6, 'stride': 8, **BERT},
}
# Max-pooling has no deterministic gradient there; the Transformer and the LSTM are compiled above.
NO_XLA = ('cnn', 'detection', 'segmentation', 'packed', 'words', 'hidden words', 'questions')
SETTINGS = {'8 micro-batches': {'accumulate': 8}, 'whole': {'accumulate': 1}, 'xla': {'accumulate': 1}}
TESTED = 67     # examples to evaluate: no multiple of any batch


def models(devices, *settings):
    """{'model, setting': results} of the documents' models, their dropout, and their data, augmented."""
    out = {}
    for name, overrides in MODELS.items():
        for setting in settings:
            if setting == 'xla' and name in NO_XLA:
                continue
            chosen = {'recipe': overrides['recipe']} if 'recipe' in overrides else {'model': name}
            _, recipe = recipes.find(**chosen)
            fields = {field: value for field, value in overrides.items() if field != 'recipe'}
            recipe = recipe.replace(**fields, **SETTINGS[setting])
            dataset, task = parts.open_data(recipe, write_data())
            batches = parts.Batches(recipe, dataset, task, devices.replicas)
            trainer, _ = parts.make_trainer(recipe, batches.rows, task, devices, Workdir('unused'),
                                            'on' if setting == 'xla' else 'off')
            trainer.runner(batches.training, 0)(recipe.training.steps)
            out[f'{name}, {setting}'] = state(trainer)
            if setting == '8 micro-batches' and devices.replicas < 8:     # tracing a decoder 8 times takes a minute
                values = evaluated(trainer, dataset, task, recipe.training.batch_size)
                out[f'{name}, {setting}'].update({f'value/{key}': value for key, value in values.items()
                                                  if not isinstance(value, str)})
    return out


@functools.cache
def write_data():
    """A folder that holds three data sets: moods, sentences with the mood of their last word, of two classes; numbers,
    pairs of English and Chinese number words; and answers, which are the word after that of the question."""
    folder, rng = pathlib.Path(tempfile.mkdtemp()), np.random.default_rng(0)
    (folder / 'moods').mkdir()
    (folder / 'numbers').mkdir()
    numbers = rng.choice(1_000_000, 2000, replace=False)
    for side, words in (('source', english), ('target', chinese)):
        (folder / 'numbers' / f'{side}.txt').write_text('\n'.join(map(words, numbers.tolist())) + '\n')
    for split, size in (('train', 300), ('validation', 80), ('test', 80)):
        lines = (f'{mood}\t{" ".join(rng.choice(["it", "was", "so", "very", "quite"], rng.integers(1, 9)))} {mood}'
                 for mood in rng.choice(['dull', 'good'], size))
        (folder / 'moods' / f'{split}.tsv').write_text('\n'.join(lines) + '\n')
    (folder / 'answers').mkdir()
    words = ['it', 'was', 'so', 'very', 'quite', 'dull', 'good']
    for split, size in (('train', 100), ('validation', 80), ('test', 80)):
        paragraphs = []
        for i in range(size):
            text = rng.permutation(words * 4).tolist()
            answer = {'text': text[4], 'answer_start': len(' '.join(text[:4])) + 1}
            paragraphs.append({'context': ' '.join(text), 'qas': [
                {'id': str(i), 'question': f'after {text[3]}', 'answers': [answer]}]})
        (folder / 'answers' / f'{split}.json').write_text(json.dumps({'data': [{'paragraphs': paragraphs}]}))
    return str(folder)


def evaluated(trainer, dataset, task, batch_size):
    tested = Subset(dataset.test, range(TESTED))
    return trainer.evaluator(*parts.evaluation_batches(task, tested, batch_size))()


def state(trainer):
    """{'state/NAME': array}; the copies of all of this worker's replicas must be equal bit for bit."""
    out = {}
    trainer.state.pull()
    for name, variable in trainer.state.variables.items():
        first, *others = [np.array(v) for v in getattr(variable, 'values', (variable,))]
        for other in others:
            np.testing.assert_array_equal(other, first, err_msg=name)
        out[f'state/{name}'] = first
    return out


def collectives(trainer, dataset_fn):
    """How many all-reduces a step has on each replica, in its traced graph."""
    strategy = trainer.devices.strategy
    spec = dataset_fn(tf.distribute.InputContext(num_replicas_in_sync=trainer.devices.replicas)).element_spec
    traced = tf.function(lambda *batch: strategy.run(trainer.train_step, args=(batch, tf.constant(0, tf.int64))))
    graph = traced.get_concrete_function(*spec).graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return sum(node.op.startswith('CollectiveReduce') for node in nodes) / len(strategy.extended.worker_devices)


def main(what, where, out, *names):
    workers, _, local = where.rpartition('x')
    if workers and 'TF_CONFIG' not in os.environ:
        sys.exit(launch([sys.executable, '-m', 'tests.distributed', what, where, out, *names], int(workers)))
    devices = selection.select('multiworker' if workers else 'cpu', int(local))
    randomness.make_deterministic(devices.kernels)
    results = {'cases': cases, 'models': models}[what](devices, *names)
    pathlib.Path(out).mkdir(parents=True, exist_ok=True)
    np.savez(f'{out}/{cluster.task()[1] if workers else 0}.npz',
             **{f'{name}|{key}': value for name, result in results.items() for key, value in result.items()})
    devices.wait_for_all()


if __name__ == '__main__':
    main(*sys.argv[1:])
