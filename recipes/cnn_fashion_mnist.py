"""The documents' CNN on Fashion-MNIST at its own size, 28x28 grey (347,146 parameters).

    python train.py --model=cnn --dataset=fashion_mnist
"""

from recipes.recipe import Recipe

RECIPE = Recipe(model='cnn', dataset='fashion_mnist', augment='flip', batch_size=128, accumulate=4, epochs=15,
                optimizer='adamw', learning_rate=1e-3, schedule='cosine', weight_decay=1e-2, label_smoothing=0.1,
                eval_every=2000)
