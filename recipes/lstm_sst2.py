"""A bidirectional LSTM over words tells the sentiment of sentences: the Stanford Sentiment Treebank, two classes.

    python train.py --model=lstm --dataset=sst2 --data_dir=FOLDER

FOLDER/sst2 holds train.tsv, validation.tsv and test.tsv: 6,920, 872 and 1,821 sentences (doi:10.18653/v1/D13-1170).
"""

from settings import LSTM, Classification, Recipe, Texts, Training

RECIPE = Recipe(
    data=Texts('sst2', tokenizer='words', vocabulary_size=10_000, max_length=48, word_dropout=0.2),
    model=LSTM(units=64, bidirectional=True, dropout=0.5),
    task=Classification(),
    training=Training(batch_size=64, epochs=6, optimizer='adamw', learning_rate=1e-3, schedule='cosine', clip_norm=1.,
                      weight_decay=0.01, eval_every=200))
