"""Semantic segmentation of streets, CamVid: 11 classes, 360x480, from random weights.

    python train.py --model=unet --dataset=camvid --data_dir=FOLDER

FOLDER/camvid has train/, validation/ and test/, each with images/ and masks/. The network sees 192x256 pixels; the
evaluation counts those of the masks as they are, 360x480.
"""

from settings import Images, Recipe, Segmentation, Training, UNet

RECIPE = Recipe(
    data=Images('camvid', image_size=256, augment='resized_crop,flip,color_jitter'),
    model=UNet(size='18', width=32),
    task=Segmentation(),
    training=Training(batch_size=16, steps=4300, optimizer='adamw', learning_rate=2e-3, schedule='cosine',
                      warmup_steps=200, weight_decay=0.05, eval_every=1000))
