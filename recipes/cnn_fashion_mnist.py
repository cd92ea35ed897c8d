"""The documents' CNN on Fashion-MNIST at its own size, 28x28 grey (347,146 parameters).

    python train.py --model=cnn --dataset=fashion_mnist
"""

from settings import CNN, Classification, Images, Recipe, Training

RECIPE = Recipe(
    data=Images('fashion_mnist', augment='flip'),
    model=CNN(),
    task=Classification(label_smoothing=0.1),
    training=Training(batch_size=128, accumulate=4, epochs=15, optimizer='adamw', learning_rate=1e-3,
                      schedule='cosine', weight_decay=1e-2, eval_every=2000))
