"""Semantic segmentation of 37 breeds of pets (pet, background, border): DeepLabv3+ over a ResNet-50. Not run by us.

    python train.py --model=deeplab --data_dir=FOLDER

TensorFlow Datasets download oxford_iiit_pet to FOLDER. --weights=RESNET50, a folder of Hugging Face's, torchvision's or
timm's weights, begins with those of ImageNet instead of random ones.
"""

from settings import DeepLab, Images, Recipe, Segmentation, Training

RECIPE = Recipe(
    data=Images('oxford_iiit_pet', image_size=512, channels=3, augment='resized_crop,flip,color_jitter'),
    model=DeepLab(size='50'),
    task=Segmentation(),
    training=Training(batch_size=16, epochs=40, optimizer='sgd', learning_rate=0.01, momentum=0.9, schedule='linear',
                      weight_decay=1e-3, eval_every=1000))
