"""Semantic segmentation of composed scenes, 128x128, of articles of Fashion-MNIST: a U-Net over a ResNet-18, 32 wide.

    python train.py --model=unet

Needs fashion_mnist, see docs/data.md.
"""

from settings import Images, Recipe, Segmentation, Training, UNet

RECIPE = Recipe(
    # Not mirrored: all shoes of Fashion-MNIST point to the left.
    data=Images('fashion_scenes'),
    model=UNet(size='18', width=32),
    task=Segmentation(),
    training=Training(batch_size=16, steps=14_000, optimizer='adamw', learning_rate=3e-3, schedule='cosine',
                      warmup_steps=400, weight_decay=0.02, eval_every=3500))
