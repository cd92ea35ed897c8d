"""ResNet-20 (272,186 parameters) on Fashion-MNIST, 28x28 grey.

    python train.py --model=resnet
"""

from settings import Classification, Images, Recipe, ResNet, Training

RECIPE = Recipe(
    # Not mirrored: all shoes of Fashion-MNIST point to the left.
    data=Images('fashion_mnist', augment='crop'),
    model=ResNet(size='20'),
    task=Classification(),
    training=Training(batch_size=128, epochs=17, optimizer='sgd', learning_rate=0.1, momentum=0.9, nesterov=True,
                      schedule='cosine', weight_decay=1e-3, eval_every=2000))
