"""A bidirectional LSTM over words tells what a question asks for: TREC, six kinds of answer.

    python train.py --model=lstm --dataset=trec --data_dir=FOLDER

FOLDER/trec holds train.tsv and test.tsv: 5,452 and 500 questions (Li and Roth, 2002); a tenth of train is validation.
"""

from settings import LSTM, Classification, Recipe, Texts, Training

RECIPE = Recipe(
    data=Texts('trec', tokenizer='words', vocabulary_size=8_000, max_length=24),
    model=LSTM(units=64, bidirectional=True, dropout=0.5),
    task=Classification(),
    training=Training(batch_size=64, epochs=10, optimizer='adamw', learning_rate=2e-3, schedule='cosine', clip_norm=1.,
                      weight_decay=0.01, eval_every=200))
