"""The documents' MLP (235,146 parameters) on Fashion-MNIST, 28x28 grey.

    python train.py --model=mlp --dataset=fashion_mnist
"""

from recipes.recipe import Recipe

RECIPE = Recipe(model='mlp', dataset='fashion_mnist', augment='flip', batch_size=128, epochs=40, optimizer='adamw',
                learning_rate=1e-3, schedule='cosine', weight_decay=1e-2, label_smoothing=0.1, eval_every=4000)
