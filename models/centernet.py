"""CenterNet: objects as points, arXiv:1904.07850, with TTFNet's box distances, arXiv:1909.00700, over a ResNet."""

import math

import keras
from keras import ops

from models.resnet import SIZES, backbone, convolution
from models.shapes import check_input_shape

STRIDE = 4              # pixels of the image per cell of the map
DISTANCES = 4           # numbers of a box in each cell
# A cell is taken for an object with probability 0.1 at first (arXiv:1708.02002, section 4.1).
PRIOR = -math.log((1 - 0.1) / 0.1)


def centernet(input_shape, box_classes, size='18', width=0, norm='batch', normalise='imagenet'):
    """Image [B, H, W, C] in [0, 1] -> [B, H/4, W/4, box_classes + 4], float32.

    For each cell of 4x4 pixels, the logits that an object of each class has its centre there; then the distances from
    the middle of the cell to the left, upper, right and lower edge of its box, in pixels, at least 0.

    The ResNet's last features are enlarged step by step, and those of the stages before are added (a feature pyramid,
    arXiv:1612.03144, of which the finest level is kept), in 4, 2 and 1 times as many channels as its first stage has,
    as CenterNet's head on a ResNet-18. Every answer comes from one cell: there is no suppression of
    overlapping boxes, and all shapes are static.

    Args:
        box_classes: number of classes. input_shape: (H, W, C), H and W multiples of 32.
        size: a row of the ResNet's size table, but those for CIFAR. width, norm, normalise: see models/resnet.py.
    """
    check_input_shape(input_shape, '(height, width, channels)', ranks=(3,))
    inputs = keras.Input(input_shape, name='inputs')
    stages = backbone(inputs, size, width, norm, normalise)
    stages.pop('stem')
    convolve, filters = convolution(norm), width or SIZES[size].width
    x = convolve(stages.pop('stage4'), 4 * filters, 1, 1, 'head_lateral4', relu=False)
    for level, (name, features) in zip((3, 2, 1), reversed(stages.items())):
        x = keras.layers.UpSampling2D(2, name=f'head_up{level}')(x)
        features = convolve(features, x.shape[-1], 1, 1, f'head_lateral{level}', relu=False)
        x = keras.layers.ReLU(name=f'head_relu{level}')(keras.layers.Add(name=f'head_add{level}')([x, features]))
        x = convolve(x, max(filters, x.shape[-1] // 2), 3, 1, f'head_smooth{level}')         # at last [B, H/4, W/4, F]
    prior = keras.initializers.Constant(PRIOR)
    logits = _head(x, convolve, filters, box_classes, 'centres', prior)
    distances = _head(x, convolve, filters, DISTANCES, 'distances', 'zeros')
    edges = Distances(dtype='float32', name='edges')(distances)
    outputs = keras.layers.Concatenate(name='outputs', dtype='float32')([logits, edges])
    return keras.Model(inputs, outputs, name='centernet')


def _head(x, convolve, filters, outputs, name, bias):
    x = convolve(x, filters, 3, 1, f'head_{name}')
    return keras.layers.Conv2D(outputs, 1, kernel_initializer=keras.initializers.RandomNormal(stddev=0.001),
                               bias_initializer=bias, dtype='float32', name=f'head_{name}_out')(x)


@keras.saving.register_keras_serializable(package='congruent')
class Distances(keras.layers.Layer):
    """Any numbers -> distances in pixels, at least 0; 4 cells where the numbers are 0."""

    def call(self, x):
        # Softplus, because relu, which TTFNet has, gives no gradient where a distance begins below 0.
        return 4. * STRIDE * ops.softplus(x) / math.log(2.)

    def compute_output_shape(self, shape):
        return shape
