"""A small BERT learns to guess hidden words of the documentation of Python, in a few minutes of 2 CPU cores.

    python train.py --model=bert --task=masked_lm

Needs no download. `predict.py --text='a [MASK] is returned'` guesses; a run of this model begins with its weights by
--weights.
"""

from settings import Bert, MaskedLM, Recipe, Texts, Training

RECIPE = Recipe(
    data=Texts('pydoc', tokenizer='wordpiece', vocabulary_size=4_000, max_length=96),
    model=Bert(size='tiny'),
    task=MaskedLM(),
    training=Training(batch_size=64, steps=2_000, optimizer='adamw', learning_rate=2e-3, schedule='linear',
                      warmup_steps=200, weight_decay=0.01, clip_norm=1., eval_every=500))
