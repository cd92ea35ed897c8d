"""DeepLabv3+, arXiv:1802.02611, over a ResNet."""

import keras

from models.resnet import SIZES, backbone, convolution
from models.shapes import check_input_shape
from models.unet import pixel_logits
from models.upsampling import BilinearUpsampling

RATES = (6, 12, 18)     # dilations of the pyramid, for features of stride 16
SKIPPED = 48            # channels to which the features of stride 4 are reduced


def deeplab(input_shape, pixel_classes, size='50', width=0, norm='batch', normalise='imagenet'):
    """Image [B, H, W, C] in [0, 1] -> logits [B, H, W, pixel_classes], float32.

    Convolutions of several dilations, and the mean over the image, look at the ResNet's last features, which keep a
    stride of 16 (atrous spatial pyramid pooling); enlarged, they meet those of stride 4.

    Args:
        input_shape: (H, W, C), H and W multiples of 32. pixel_classes: number of classes of a pixel.
        size: a row of the ResNet's size table, but those for CIFAR. width, norm, normalise: see models/resnet.py; the
            head has 4 times as many channels as the first stage: 256, as in the paper, where width is 64.
    """
    check_input_shape(input_shape, '(height, width, channels)', ranks=(3,))
    inputs = keras.Input(input_shape, name='inputs')
    features = backbone(inputs, size, width, norm, normalise, dilated=True)
    convolve, filters = convolution(norm), 4 * (width or SIZES[size].width)
    x = _pyramid(features['stage4'], filters, convolve)                                  # [B, H/16, W/16, filters]
    x = BilinearUpsampling(4, name='head_up4')(x)
    skipped = convolve(features['stage1'], SKIPPED, 1, 1, 'head_skipped')
    x = keras.layers.Concatenate(name='head_beside')([x, skipped])
    for number in (1, 2):
        x = convolve(x, filters, 3, 1, 'head_refined', number)
    x = pixel_logits(x, pixel_classes)                                                       # [B, H/4, W/4, classes]
    x = BilinearUpsampling(4, dtype='float32', name='head_up1')(x)
    return keras.Model(inputs, x, name='deeplab')


def _pyramid(x, filters, convolve):
    mean = keras.layers.GlobalAveragePooling2D(keepdims=True, name='head_pool')(x)                # [B, 1, 1, c]
    mean = convolve(mean, filters, 1, 1, 'head_pool')
    mean = keras.layers.UpSampling2D(x.shape[1:3], name='head_pool_up')(mean)
    branches = [convolve(x, filters, 1, 1, 'head_aspp', 1)]
    for number, rate in enumerate(RATES, 2):
        branches.append(convolve(x, filters, 3, 1, 'head_aspp', number, dilation=rate))
    x = keras.layers.Concatenate(name='head_aspp')([*branches, mean])
    return convolve(x, filters, 1, 1, 'head_projection')
