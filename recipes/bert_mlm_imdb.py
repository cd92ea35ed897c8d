"""A BERT of 4 layers, 256 wide, learns to guess hidden words of reviews of films, in 15 minutes of 2 CPU cores.

    python train.py --model=bert --task=masked_lm --dataset=imdb --data_dir=FOLDER

FOLDER/imdb holds the reviews, see docs/data.md; their labels are not read. What it has learned is where
`--recipe=bert_sst2 --weights=RUN` begins.
"""

from settings import Bert, MaskedLM, Recipe, Texts, Training

RECIPE = Recipe(
    data=Texts('imdb', tokenizer='wordpiece', vocabulary_size=8_000, max_length=64),
    model=Bert(size='mini'),
    task=MaskedLM(),
    training=Training(batch_size=64, steps=3_000, optimizer='adamw', learning_rate=1e-3, schedule='linear',
                      warmup_steps=300, weight_decay=0.01, clip_norm=1., eval_every=1000))
