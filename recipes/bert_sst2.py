"""A BERT tells the sentiment of sentences: the Stanford Sentiment Treebank, two classes.

    python train.py --model=bert --dataset=sst2 --data_dir=FOLDER

FOLDER/sst2 holds train.tsv, validation.tsv and test.tsv: 6,920, 872 and 1,821 sentences (doi:10.18653/v1/D13-1170).
With --weights=MODEL, a folder of Hugging Face's (config.json, model.safetensors, vocab.txt), that decides the sizes and
the words. Without it a tiny BERT begins with random weights, and with words that are learned from the sentences.
"""

from settings import Bert, Classification, Recipe, Texts, Training

RECIPE = Recipe(
    data=Texts('sst2', tokenizer='wordpiece', max_length=64),
    model=Bert(),
    task=Classification(),
    training=Training(batch_size=32, epochs=3, optimizer='adamw', learning_rate=5e-5, schedule='linear',
                      warmup_steps=60, weight_decay=0.01, clip_norm=1., eval_every=200))
