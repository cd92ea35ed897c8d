"""A tiny Transformer learns to write English number words as Chinese numerals; numbers are held out.

    python train.py --model=transformer
    python predict.py --workdir=runs/transformer_number_words --text='two thousand and twenty-six'
"""

from settings import Recipe, TextPairs, Training, Transformer, Translation

RECIPE = Recipe(
    data=TextPairs('number_words'),
    model=Transformer(size='tiny'),
    task=Translation(label_smoothing=0.1),
    training=Training(batch_size=256, steps=2000, optimizer='adam', learning_rate=2e-3, schedule='cosine',
                      warmup_steps=100, clip_norm=1., eval_every=500))
