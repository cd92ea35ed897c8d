"""A BERT finds the answers to questions in texts: SQuAD 1.1.

    python train.py --model=bert --task=question_answering --data_dir=FOLDER

FOLDER/squad holds train.json and test.json, in the layout of SQuAD 1.1 (arXiv:1606.05250). With --weights=MODEL, a
folder of Hugging Face's (config.json, model.safetensors, vocab.txt), that decides the sizes and the words; without,
little is learned.
"""

from settings import Bert, Questions, QuestionAnswering, Recipe, Training

RECIPE = Recipe(
    data=Questions('squad', tokenizer='wordpiece', max_length=192, question_length=40, stride=100),
    model=Bert(),
    task=QuestionAnswering(),
    training=Training(batch_size=16, epochs=2, optimizer='adamw', learning_rate=1e-4, schedule='linear',
                      warmup_steps=60, weight_decay=0.01, clip_norm=1., eval_every=400))
