"""A small Transformer translates the messages of programs from English into German.

    python train.py --model=transformer --dataset=gettext/de
    python predict.py --workdir=runs/transformer_gettext_de --text='The file could not be opened.' --attention=out.png
"""

from settings import Recipe, TextPairs, Training, Transformer, Translation

# The paper's: one table for both languages and the logits, its schedule with a shorter warm-up and a higher peak, its
# Adam, label smoothing, the mean of the last checkpoints, and beam search with its penalty (arXiv:1706.03762, sections
# 3.4, 5.3, 5.4, 6.1). Ours: norms before the sub-layers, packed rows, and a gradient that is clipped.
RECIPE = Recipe(
    data=TextPairs('gettext/de', vocabulary_size=4000, max_length=64, packing=True),
    model=Transformer(size='tiny', share_embeddings=True),
    task=Translation(label_smoothing=0.1, beam_size=4, length_penalty=0.6),
    training=Training(batch_size=64, steps=1200, optimizer='adam', learning_rate=3e-3, schedule='inverse_sqrt',
                      warmup_steps=200, beta_2=0.98, epsilon=1e-9, clip_norm=1., average_last=5, average_every=40))
