"""The documents' CNN (64x64x3, 1,969,738 parameters) on scikit-learn's handwritten digits, resized.

    python train.py --model=cnn
"""

from settings import CNN, Classification, Images, Recipe, Training

RECIPE = Recipe(
    data=Images('digits', image_size=64, channels=3, augment='shift'),
    model=CNN(),
    task=Classification(label_smoothing=0.1),
    training=Training(batch_size=128, accumulate=4, epochs=40, optimizer='adamw', learning_rate=1e-3,
                      schedule='cosine', weight_decay=0.05, eval_every=200))
