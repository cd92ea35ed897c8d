"""U-Net, arXiv:1505.04597, whose contracting half is a ResNet."""

import keras

from models.resnet import backbone, convolution
from models.shapes import check_input_shape


def unet(input_shape, pixel_classes, size='18', width=0, norm='batch', normalise='imagenet'):
    """Image [B, H, W, C] in [0, 1] -> logits [B, H, W, pixel_classes], float32.

    The ResNet's last features are enlarged to twice their size, step by step, each pixel four times; the features
    of the same size on the way down, and at last the image itself, are put beside them, and two convolutions follow.

    Args:
        input_shape: (H, W, C), H and W multiples of 32. pixel_classes: number of classes of a pixel.
        size: a row of the ResNet's size table, but those for CIFAR. width, norm, normalise: see models/resnet.py.
    """
    check_input_shape(input_shape, '(height, width, channels)', ranks=(3,))
    inputs = keras.Input(input_shape, name='inputs')
    features = [inputs, *backbone(inputs, size, width, norm, normalise).values()]
    convolve = convolution(norm)
    x = features.pop()
    filters = features[1].shape[-1]                          # of the stem
    # Half of what the ResNet has at twice the stride: the finest maps cost most.
    widths = [max(filters // 4, 8), max(filters // 2, 8), filters, 2 * filters, 4 * filters]
    for level in reversed(range(len(features))):
        x = keras.layers.UpSampling2D(2, name=f'head_up{level}')(x)
        x = keras.layers.Concatenate(name=f'head_beside{level}')([x, features[level]])
        x = convolve(x, widths[level], 3, 1, f'head_up{level}', 1)
        x = convolve(x, widths[level], 3, 1, f'head_up{level}', 2)
    return keras.Model(inputs, pixel_logits(x, pixel_classes), name='unet')


def pixel_logits(x, pixel_classes):
    """Features [B, H, W, F] -> logits [B, H, W, pixel_classes], float32."""
    return keras.layers.Conv2D(pixel_classes, 1, dtype='float32', name='logits')(x)
