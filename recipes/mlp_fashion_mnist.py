"""The documents' MLP (235,146 parameters) on Fashion-MNIST, 28x28 grey.

    python train.py --model=mlp --dataset=fashion_mnist
"""

from settings import MLP, Classification, Images, Recipe, Training

RECIPE = Recipe(
    data=Images('fashion_mnist', augment='flip'),
    model=MLP(),
    task=Classification(label_smoothing=0.1),
    training=Training(batch_size=128, epochs=40, optimizer='adamw', learning_rate=1e-3, schedule='cosine',
                      weight_decay=1e-2, eval_every=4000))
