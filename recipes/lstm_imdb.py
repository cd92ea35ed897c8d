"""A bidirectional LSTM over words tells whether a review of a film is favourable: IMDB.

    python train.py --model=lstm --dataset=imdb --data_dir=FOLDER

FOLDER/imdb holds train/ and test/ with pos/*.txt and neg/*.txt each: 25,000 and 25,000 reviews (Maas et al., 2011); a
tenth of train is validation.
"""

from settings import LSTM, Classification, Recipe, Texts, Training

RECIPE = Recipe(
    data=Texts('imdb', tokenizer='words', vocabulary_size=20_000, max_length=320, word_dropout=0.2),
    model=LSTM(units=64, bidirectional=True, dropout=0.5),
    task=Classification(),
    training=Training(batch_size=128, epochs=3, optimizer='adamw', learning_rate=2e-3, schedule='cosine', clip_norm=1.,
                      weight_decay=0.01, eval_every=400))
