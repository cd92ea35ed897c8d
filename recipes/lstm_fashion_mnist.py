"""The documents' LSTM (16,310 parameters) reading Fashion-MNIST row by row: 28 rows of 28 pixels.

    python train.py --model=lstm --dataset=fashion_mnist
"""

from settings import LSTM, Classification, Images, Recipe, Training

RECIPE = Recipe(
    data=Images('fashion_mnist', augment='flip'),
    model=LSTM(),
    task=Classification(),
    training=Training(batch_size=128, epochs=20, learning_rate=4e-3, schedule='cosine', clip_norm=1., eval_every=4000))
