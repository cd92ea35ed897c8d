"""Object detection in composed scenes, 128x128, of articles of Fashion-MNIST: CenterNet over a ResNet-18, 32 wide.

    python train.py --model=centernet

Needs fashion_mnist, see docs/data.md.
"""

from settings import CenterNet, Detection, Images, Recipe, Training

RECIPE = Recipe(
    data=Images('fashion_scenes', augment='flip'),
    model=CenterNet(size='18', width=32),
    task=Detection(),
    training=Training(batch_size=32, steps=5600, optimizer='adamw', learning_rate=1.5e-3, schedule='cosine',
                      warmup_steps=200, weight_decay=0.02, clip_norm=10., eval_every=1400))
