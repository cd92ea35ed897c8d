"""The documents' LSTM (16,310 parameters) reading Fashion-MNIST row by row: 28 rows of 28 pixels.

    python train.py --model=lstm --dataset=fashion_mnist
"""

from recipes.recipe import Recipe

RECIPE = Recipe(model='lstm', dataset='fashion_mnist', augment='flip', batch_size=128, epochs=20, learning_rate=4e-3,
                schedule='cosine', clip_norm=1., eval_every=4000)
