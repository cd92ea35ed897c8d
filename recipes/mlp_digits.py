"""The documents' MLP (784-256-128-10, 235,146 parameters) on scikit-learn's handwritten digits, resized to 28x28.

    python train.py --model=mlp
"""

from settings import MLP, Classification, Images, Recipe, Training

RECIPE = Recipe(
    data=Images('digits', image_size=28, augment='shift'),
    model=MLP(),
    task=Classification(),
    training=Training(batch_size=128, epochs=120, learning_rate=1e-3, schedule='cosine', eval_every=500))
