"""ResNet-20 (272,474 parameters) on CIFAR-10, arXiv:1512.03385, section 4.2, in about half an hour of 2 CPU cores.

    python train.py --model=resnet --dataset=cifar10 --data_dir=FOLDER

FOLDER/cifar10 holds train/ and test/ with a folder of PNG files per class, 50,000 and 10,000 images in all; a tenth of
train is validation. Without such a folder, TensorFlow Datasets download it to FOLDER. The paper trains for 64,000 steps
(--steps=64000) and reaches 0.9125.
"""

from settings import Classification, Images, Recipe, ResNet, Training

# The paper's decay of 1e-4 is a part of the gradient, which a momentum of 0.9 multiplies by 10; ours is decoupled, and
# leaves norms out. Its rate falls twice by a factor of 10; ours is a cosine.
RECIPE = Recipe(
    data=Images('cifar10', image_size=32, channels=3, augment='crop,flip'),
    model=ResNet(size='20'),
    task=Classification(),
    training=Training(batch_size=128, steps=11_000, optimizer='sgd', learning_rate=0.1, momentum=0.9, nesterov=True,
                      schedule='cosine', weight_decay=1e-3, eval_every=2000))
