"""What guessing hidden words is worth to a BERT: fine-tuned with it and without, from random weights.

    python -m benchmarks.pretraining --data_dir=FOLDER
    python -m benchmarks.pretraining --data_dir=FOLDER --quick      a few steps, to try it out: pretraining_quick.json

Trains the recipe bert_mlm_imdb, 15 minutes on 2 cores; then bert_sst2 and bert_trec from it, and from the same run
after one step: the same sizes and the same words, but nothing learned. A model without knowledge wants larger steps, so
it is trained at each of RATES, and its best is what counts. Each run is a process of its own, in a temporary folder.

Pseudo-perplexity, arXiv:1910.14659: exp of the mean negative log-probability of every word, each hidden alone. Of the
first TEXTS texts of the test split, as far as max_length. Writes benchmarks/results/pretraining.json.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

from absl import flags

import cli
from benchmarks import collect
from benchmarks.report import write
from errors import RunError, UserError

PRETRAINING, TASKS = 'bert_mlm_imdb', ('bert_sst2', 'bert_trec')
FINE_TUNING = 1e-4
RATES = (FINE_TUNING, 3e-4, 1e-3)
TEXTS, B = 200, 128
QUICK = ('--steps=4', '--warmup_steps=1', '--eval_every=0', '--batch_size=8')


def main():
    data_dir, quick = flags.FLAGS.data_dir, flags.FLAGS.quick
    if not pathlib.Path(data_dir).is_dir():
        raise UserError(f'`data_dir` must be a folder. Received: data_dir={data_dir!r}')
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        before = train(folder / 'random', f'--recipe={PRETRAINING}', '--steps=1', '--warmup_steps=0', '--eval_every=0')
        after = train(folder / 'pretrained', f'--recipe={PRETRAINING}', *(QUICK if quick else ()))
        record = {'pretraining': {'random': before, 'pretrained': after}, 'pseudo_perplexity': {
            name: pseudo_perplexity(folder / name, data_dir) for name in ('random', 'pretrained')}}
        print(record['pseudo_perplexity'], flush=True)
        for task in TASKS:
            record[task] = {'pretrained': [fine_tuned(folder, task, 'pretrained', FINE_TUNING)],
                            'random': [fine_tuned(folder, task, 'random', rate) for rate in RATES]}
            record[task]['gain'] = gain(record[task])
            print(f'{task}: {100 * record[task]["gain"]:.1f} points', flush=True)
    write('pretraining_quick' if quick else 'pretraining', {**record, 'commit': collect.commit()})
    print(table(record))


def fine_tuned(folder, task, start, rate):
    return train(folder / f'{task}_{start}_{rate}', f'--recipe={task}', f'--weights={folder / start}',
                 f'--learning_rate={rate}', *(QUICK if flags.FLAGS.quick else ()))


def train(workdir, *arguments):
    """What is kept of a run."""
    command = ['train.py', *arguments, '--noexport', f'--workdir={workdir}', f'--data_dir={flags.FLAGS.data_dir}']
    if code := subprocess.run([sys.executable, *command], cwd=collect.ROOT).returncode:
        raise RunError(f'train.py {" ".join(arguments)} ended with exit code {code}; it has said why')
    results = json.loads((workdir / 'results.json').read_text())
    return {'flags': [flag for flag in arguments if '/' not in flag], 'eval': results['eval'],
            'steps': results['steps'], 'minutes': results['train_seconds'] / 60}


def gain(runs):
    """By how much the test accuracy is better than the best without pre-training."""
    return runs['pretrained'][0]['eval']['accuracy'] - max(run['eval']['accuracy'] for run in runs['random'])


def pseudo_perplexity(workdir, data_dir):
    """Of the texts and the model of a run's folder."""
    with cli.quiet_tensorflow():
        import numpy as np
        import tensorflow as tf

        from experiment import trained
    _, dataset, task, model, _ = trained.load(workdir, data_dir=data_dir)
    indices = tf.range(min(TEXTS, dataset.test.num_examples), dtype=tf.int64)
    ids = task.prepare(dataset.test.gather(indices, list(task.roles.values())))['ids'].numpy()       # [N, T]
    texts, places = np.nonzero(task.text.special.are_words(tf.constant(ids)).numpy())                # a row per word
    losses = []

    @tf.function
    def loss(hidden, places, words):
        positions = tf.tile(places[:, None], [1, task.sizes['predictions']])                         # of a fixed number
        logits = model({'ids': hidden, 'mask': hidden != task.text.special.pad, 'positions': positions},
                       training=False)[:, 0]                                                         # [B, V]
        return tf.nn.sparse_softmax_cross_entropy_with_logits(words, logits)
    for start in range(0, len(texts), B):
        rows, columns = texts[start:start + B], places[start:start + B]
        hidden, each = ids[rows], np.arange(len(rows))
        words = hidden[each, columns]
        hidden[each, columns] = task.text.special.mask
        losses.append(loss(tf.constant(hidden), tf.constant(columns, tf.int32), tf.constant(words)).numpy())
    return {'words': len(texts), 'value': float(np.exp(np.mean(np.concatenate(losses))))}


def table(record):
    """A table for docs/bert.md."""
    lines = ['| fine-tuned on | after guessing hidden words | from random weights, best of the rates | gain |',
             '|---|---|---|---|']
    for task in TASKS:
        runs = record[task]
        best = max(runs['random'], key=lambda run: run['eval']['accuracy'])
        lines.append(f'| {task.removeprefix("bert_")} | {runs["pretrained"][0]["eval"]["accuracy"]:.4f} | '
                     f'{best["eval"]["accuracy"]:.4f} ({", ".join(map("{:g}".format, RATES))}) | '
                     f'{100 * runs["gain"]:.1f} points |')
    found = record['pseudo_perplexity']
    return '\n'.join([*lines, '', f'Pseudo-perplexity of {found["pretrained"]["words"]:,} words: '
                      f'{found["pretrained"]["value"]:.1f}; {found["random"]["value"]:,.0f} before.'])


def define():
    flags.DEFINE_string('data_dir', '', 'Folder of datasets: imdb, sst2 and trec.')
    flags.DEFINE_boolean('quick', False, 'A few steps, to try it out.')


if __name__ == '__main__':
    cli.run(main, define)
