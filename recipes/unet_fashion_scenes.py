"""Semantic segmentation of composed scenes, 128x128, of articles of Fashion-MNIST: a U-Net over a ResNet-18, 32 wide.

    python train.py --model=unet

Needs fashion_mnist, see docs/data.md.
"""

from settings import Images, Recipe, Segmentation, Training, UNet

RECIPE = Recipe(
    data=Images('fashion_scenes', augment='flip'),
    model=UNet(size='18', width=32),
    task=Segmentation(),
    training=Training(batch_size=32, steps=3000, optimizer='adamw', learning_rate=2e-3, schedule='cosine',
                      warmup_steps=200, weight_decay=0.02, eval_every=1000))
