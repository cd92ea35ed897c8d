"""ResNet-50 (25,557,032 parameters) on ImageNet: 90 epochs. Not run by us.

    python train.py --model=resnet --dataset=imagenet2012 --data_dir=FOLDER

FOLDER holds what TensorFlow Datasets need to prepare imagenet2012, or have prepared; or a folder imagenet2012 with
train/ and test/, and in each a folder of images per class. 256 images a step need several GPUs or a TPU.
"""

from settings import Classification, Images, Recipe, ResNet, Training

# 0.1 per 256 images and 5 epochs of warm-up: arXiv:1706.02677. The decay is decoupled: 1e-4 in the gradient, times 10.
RECIPE = Recipe(
    data=Images('imagenet2012', image_size=224, channels=3, augment='flip'),
    model=ResNet(size='50'),
    task=Classification(label_smoothing=0.1),
    training=Training(batch_size=256, epochs=90, optimizer='sgd', learning_rate=0.1, momentum=0.9, nesterov=True,
                      schedule='cosine', warmup_steps=25_000, weight_decay=1e-3, eval_every=5000))
