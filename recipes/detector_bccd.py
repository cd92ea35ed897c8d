"""Object detection in microscope images of blood, BCCD: cells of 3 classes, 480x640, from random weights.

    python train.py --model=centernet --dataset=bccd --data_dir=FOLDER

FOLDER/bccd is the set in Pascal VOC's layout; without it, TensorFlow Datasets download it to FOLDER.
"""

from settings import CenterNet, Detection, Images, Recipe, Training

RECIPE = Recipe(
    data=Images('bccd', image_size=480, augment='resized_crop,flip,vertical_flip'),
    model=CenterNet(size='18', width=32),
    task=Detection(),
    training=Training(batch_size=8, steps=5000, optimizer='adamw', learning_rate=2e-3, schedule='cosine',
                      warmup_steps=200, weight_decay=0.05, clip_norm=10., eval_every=1000))
