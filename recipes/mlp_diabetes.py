"""The documents' MLP and their other loss, mean squared error: regression on scikit-learn's diabetes data.

    python train.py --model=mlp --dataset=diabetes
"""

from settings import MLP, Recipe, Regression, Training, Vectors

RECIPE = Recipe(
    data=Vectors('diabetes'),
    model=MLP(),
    task=Regression(),
    training=Training(batch_size=64, epochs=20, optimizer='adamw', learning_rate=1e-3, schedule='cosine',
                      weight_decay=0.1, eval_every=50))
