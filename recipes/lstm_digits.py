"""The documents' LSTM (50 units) reading scikit-learn's handwritten digits row by row: 8 rows of 8 pixels.

    python train.py --model=lstm
"""

from recipes.recipe import Recipe

RECIPE = Recipe(model='lstm', dataset='digits', batch_size=128, epochs=200,
                learning_rate=5e-3, schedule='cosine', clip_norm=1., eval_every=500)
