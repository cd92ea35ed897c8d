"""Object detection on COCO 2017, 118,287 images of 80 classes: CenterNet over a ResNet-18, 512x512. Not run by us.

    python train.py --model=centernet --dataset=coco/2017 --data_dir=FOLDER

FOLDER/coco/2017 in COCO's layout, or what TensorFlow Datasets prepare. TTFNet reaches AP 0.259 with ResNet-18 in 12
epochs (arXiv:1909.00700) and CenterNet 0.281 in 140 (arXiv:1904.07850), both from ImageNet's weights: add
--weights=RESNET18, a folder of Hugging Face's, torchvision's or timm's.
"""

from settings import CenterNet, Detection, Images, Recipe, Training

RECIPE = Recipe(
    data=Images('coco/2017', image_size=512, channels=3, augment='flip,resized_crop,color_jitter'),
    model=CenterNet(size='18'),
    task=Detection(),
    training=Training(batch_size=128, epochs=24, optimizer='sgd', learning_rate=0.016, momentum=0.9, schedule='cosine',
                      warmup_steps=500, weight_decay=4e-3, clip_norm=35., eval_every=5000))
