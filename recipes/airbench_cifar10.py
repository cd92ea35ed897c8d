"""A small network for CIFAR-10 that learns in few epochs, after arXiv:2404.00498: 18 epochs of 45,000 images.

    python train.py --model=airbench --data_dir=FOLDER

FOLDER/cifar10 holds train/ and test/ with a folder of PNG files per class, 50,000 and 10,000 images in all; a tenth of
train is validation. Without such a folder, TensorFlow Datasets download it to FOLDER.
"""

from settings import Airbench, Classification, Images, Recipe, Training

# The paper's rates are per example of a summed loss: 11.5 / (1024 * (1 + 1 / 0.15)) = 0.0015 each, so 0.75 for the mean
# of 512. Its decay of 0.0153 * 512 / 7851 = 0.001 a step is a part of the gradient, which the momentum multiplies by
# 1 / 0.15, and is a share of the rate's peak: 0.0067 / 0.75 = 0.0089 decoupled. Its rate begins at a fifth of the peak
# and ends at 7%, ours begins and ends at 0; the peak, after 23% of the steps, is the same. It has 9.9 epochs of 1,024.
RECIPE = Recipe(
    data=Images('cifar10', image_size=32, channels=3, augment='alternating_flip,translate'),
    model=Airbench(width=48),
    task=Classification(label_smoothing=0.2),
    training=Training(batch_size=512, epochs=18, optimizer='sgd', learning_rate=0.75, momentum=0.85, nesterov=True,
                      schedule='linear', warmup_steps=364, weight_decay=0.009))
