"""Object detection in composed scenes, 128x128, of articles of Fashion-MNIST: CenterNet over a ResNet-18, 32 wide.

    python train.py --model=centernet

Needs fashion_mnist, see docs/data.md.
"""

from settings import CenterNet, Detection, Images, Recipe, Training

RECIPE = Recipe(
    # Not mirrored: all shoes of Fashion-MNIST point to the left.
    data=Images('fashion_scenes'),
    model=CenterNet(size='18', width=32),
    task=Detection(),
    training=Training(batch_size=16, steps=13_500, optimizer='adamw', learning_rate=3e-3, schedule='cosine',
                      warmup_steps=400, weight_decay=0.02, clip_norm=10., eval_every=4500))
