"""The documents' LSTM (50 units) reading scikit-learn's handwritten digits row by row: 16 rows of 16 pixels.

    python train.py --model=lstm
"""

from settings import LSTM, Classification, Images, Recipe, Training

RECIPE = Recipe(
    data=Images('digits', image_size=16, augment='shift'),
    model=LSTM(),
    task=Classification(),
    training=Training(batch_size=128, epochs=120, learning_rate=5e-3, schedule='cosine', clip_norm=1., eval_every=500))
