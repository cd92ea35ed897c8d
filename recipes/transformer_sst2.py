"""The encoder of a tiny Transformer tells the sentiment of sentences: the Stanford Sentiment Treebank, two classes.

    python train.py --model=transformer --task=classification --dataset=sst2 --data_dir=FOLDER

FOLDER/sst2 holds train.tsv, validation.tsv and test.tsv: 6,920, 872 and 1,821 sentences (doi:10.18653/v1/D13-1170).
"""

from settings import Classification, Recipe, Texts, Training, Transformer

RECIPE = Recipe(
    data=Texts('sst2', tokenizer='words', vocabulary_size=5_000, max_length=48, word_dropout=0.1),
    model=Transformer(size='tiny', dropout=0.3),
    task=Classification(label_smoothing=0.1),
    training=Training(batch_size=64, epochs=6, optimizer='adamw', learning_rate=1e-3, schedule='cosine',
                      warmup_steps=50, weight_decay=0.05, clip_norm=1., ema=0.99,
                      eval_every=200))
