"""Residual networks: arXiv:1512.03385, in the form that PyTorch's libraries and Hugging Face have weights for."""

import dataclasses
import math

import keras
from keras import ops

from errors import UserError, lookup
from models.batch_norm import BatchNormalization
from models.shapes import check_input_shape


@dataclasses.dataclass(frozen=True)
class Size:
    """Attributes: depths: blocks per stage. width: channels inside the blocks of stage 1; each stage doubles them.

    A bottleneck block ends in 4 times the channels that are inside it. Three stages are the form for CIFAR.
    """
    depths: tuple
    width: int = 64
    bottleneck: bool = False

    @property
    def is_small(self):
        return len(self.depths) == 3


SIZES = {
    '18': Size((2, 2, 2, 2)),
    '34': Size((3, 4, 6, 3)),
    '50': Size((3, 4, 6, 3), bottleneck=True),
    '101': Size((3, 4, 23, 3), bottleneck=True),
    '152': Size((3, 8, 36, 3), bottleneck=True),
    '20': Size((3, 3, 3), 16),
    '32': Size((5, 5, 5), 16),
    '44': Size((7, 7, 7), 16),
    '56': Size((9, 9, 9), 16),
}
# Mean and deviation of ImageNet's red, green and blue in [0, 1], as all published weights expect them; and of grey.
IMAGENET = {3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), 1: ((0.459,), (0.226,))}
# torch.nn.init.kaiming_normal_(mode='fan_out'), as torchvision and Hugging Face begin.
HE = {'class_name': 'VarianceScaling', 'config': {'scale': 2., 'mode': 'fan_out', 'distribution': 'untruncated_normal'}}
EPSILON, MOMENTUM = 1e-5, 0.9       # torch's momentum 0.1 is Keras's 0.9


def resnet(input_shape, outputs=10, size='20', width=0, norm='batch', normalise='imagenet'):
    """Image [B, H, W, C] in [0, 1] -> logits [B, outputs], float32.

    | size | form     | blocks per stage      | trainable parameters with 3 channels |
    |------|----------|-----------------------|--------------------------------------|
    | 20   | CIFAR    | 3 3 3                 | 272,474 with 10 outputs              |
    | 32   | CIFAR    | 5 5 5                 | 466,906                              |
    | 44   | CIFAR    | 7 7 7                 | 661,338                              |
    | 56   | CIFAR    | 9 9 9                 | 855,770                              |
    | 18   | ImageNet | 2 2 2 2               | 11,689,512 with 1,000 outputs        |
    | 34   | ImageNet | 3 4 6 3               | 21,797,672                           |
    | 50   | ImageNet | 3 4 6 3, bottlenecks  | 25,557,032                           |
    | 101  | ImageNet | 3 4 23 3, bottlenecks | 44,549,160                           |
    | 152  | ImageNet | 3 8 36 3, bottlenecks | 60,192,808                           |

    Args:
        width: channels inside the blocks of stage 1. 0 is the size's own: 64, or 16 in the form for CIFAR.
        norm: 'batch'; or 'group', with standardised kernels, where each example must count alone.
        normalise: 'imagenet' or 'none', see `backbone`.
    """
    check_input_shape(input_shape, '(height, width, channels)', ranks=(3,))
    inputs = keras.Input(input_shape, name='inputs')
    *_, last = backbone(inputs, size, width, norm, normalise).values()
    x = keras.layers.GlobalAveragePooling2D(dtype='float32', name='mean')(last)  # [B, H, W, C] -> [B, C]
    # torch.nn.Linear's kernel. Logits, for a loss that is exact when saturated; float32 whatever the rest has.
    uniform = keras.initializers.VarianceScaling(1 / 3, 'fan_in', 'uniform')
    x = keras.layers.Dense(outputs, kernel_initializer=uniform, dtype='float32', name='logits')(x)
    return keras.Model(inputs, x, name='resnet')


def backbone(images, size, width=0, norm='batch', normalise='imagenet', dilated=False):
    """The features of each stage by name, for a classifier, a detector or a segmenter.

    Sizes 18 to 152 (v1.5: the 3x3 convolution of a bottleneck has the stride) begin with a 7x7 convolution of stride 2
    and end the stem in a max-pooling; sizes 20 to 56 begin with a 3x3 convolution of stride 1 (section 4.2 of the
    paper). Where a block changes the shape, its shortcut is a 1x1 convolution, in the CIFAR form too: the paper's
    parameter-free one would save 2,752 parameters of size 20, and needs code of its own. As in torchvision by default,
    the last scale of a block starts at 1, not at 0.

    Padding is torch's, the same on both sides: TensorFlow's 'same' moves what a stride of 2 sees by one pixel.

    Args:
        images: KerasTensor [B, H, W, C] in [0, 1], C 1 or 3; H and W may be None.
        size: a key of SIZES. width: channels inside the blocks of stage 1; 0 is the size's own.
        norm: 'batch' (arXiv:1502.03167); or 'group' (arXiv:1803.08494, at most 32 groups of at least 2 channels) with
            standardised kernels (arXiv:1903.10520).
        normalise: 'imagenet' takes ImageNet's mean from the images and divides by its deviation, as weights from
            elsewhere expect; 'none' leaves them in [0, 1].
        dilated: whether stage 4 keeps the size of stage 3, with 3x3 convolutions of dilation 2 in place of the stride
            (arXiv:1606.00915, section 3.1). Its weights fit both forms.

    Returns:
        {name: KerasTensor}, with rounding up where a stride does not divide H or W:
            stem     [B, H/2, W/2, width], before its max-pooling      CIFAR form [B, H, W, width]
            stage1   [B, H/4, W/4, c]                                  [B, H, W, width]
            stage2   [B, H/8, W/8, 2 c]                                [B, H/2, W/2, 2 width]
            stage3   [B, H/16, W/16, 4 c]                              [B, H/4, W/4, 4 width]
            stage4   [B, H/32, W/32, 8 c]                              none
        c is width, or 4 width with bottleneck blocks (sizes 50, 101, 152).
    """
    chosen = lookup(SIZES, size, 'size')
    chosen = dataclasses.replace(chosen, width=width or chosen.width)
    if dilated and chosen.is_small:
        raise UserError(f'`size` must be one of four stages, for a dilated last one. Received: size={size!r}')
    convolve = convolution(norm)
    x = _normalised(images, normalise)
    kernel, stride = (3, 1) if chosen.is_small else (7, 2)
    x = features = convolve(x, chosen.width, kernel, stride, 'stem')
    found = {'stem': features}
    if not chosen.is_small:
        x = keras.layers.ZeroPadding2D(1, name='stem_pool_pad')(x)      # 0 is the least that a relu gives
        x = keras.layers.MaxPooling2D(3, 2, name='stem_pool')(x)
    block = _bottleneck if chosen.bottleneck else _basic
    for stage, depth in enumerate(chosen.depths, 1):
        is_dilated = dilated and stage == 4
        for i in range(depth):
            stride = 2 if stage > 1 and i == 0 and not is_dilated else 1
            x = block(x, chosen.width * 2 ** (stage - 1), stride, convolve, f'stage{stage}_block{i}', 1 + is_dilated)
        found[f'stage{stage}'] = x
    return found


def _normalised(images, normalise):
    lookup(dict.fromkeys(('imagenet', 'none')), normalise, 'normalise')
    if normalise == 'none':
        return images
    channels = images.shape[-1]
    if channels not in IMAGENET:
        raise UserError(f'`normalise` imagenet needs images of 1 or 3 channels. Received: {channels} channels')
    mean, deviation = IMAGENET[channels]
    # float32: in half precision the difference would be rounded twice.
    return keras.layers.Rescaling([1 / d for d in deviation], [-m / d for m, d in zip(mean, deviation)],
                                  dtype='float32', name='normalise')(images)


# --- Blocks: x [B, H, W, c] -> [B, H / stride, W / stride, filters, or 4 * filters in a bottleneck] ---

def _basic(x, filters, stride, convolve, name, dilation):
    y = convolve(x, filters, 3, stride, name, 1, dilation=dilation)
    y = convolve(y, filters, 3, 1, name, 2, relu=False, dilation=dilation)
    return _sum(y, x, stride, convolve, name)


def _bottleneck(x, filters, stride, convolve, name, dilation):
    y = convolve(x, filters, 1, 1, name, 1)
    y = convolve(y, filters, 3, stride, name, 2, dilation=dilation)
    y = convolve(y, 4 * filters, 1, 1, name, 3, relu=False)
    return _sum(y, x, stride, convolve, name)


def _sum(y, x, stride, convolve, name):
    if stride > 1 or x.shape[-1] != y.shape[-1]:
        x = convolve(x, y.shape[-1], 1, stride, f'{name}_shortcut', relu=False)
    return keras.layers.ReLU(name=f'{name}_relu')(keras.layers.Add(name=f'{name}_add')([y, x]))


def convolution(norm):
    """function (x, filters, kernel, stride, name, number, relu, dilation) -> [B, H / stride, W / stride, filters].

    A convolution without a bias, its norm, and a relu, in layers NAME_convN, NAME_normN, NAME_reluN. norm: see
    `backbone`.
    """
    return lookup({'batch': _Batch, 'group': _Group}, norm, 'norm')()


class _Batch:

    convolution = keras.layers.Conv2D

    def __call__(self, x, filters, kernel, stride, name, number='', relu=True, dilation=1):
        if stride > 1 and kernel > 1:
            x = keras.layers.ZeroPadding2D(kernel // 2, name=f'{name}_pad{number}')(x)
        x = self.convolution(filters, kernel, stride, padding='valid' if stride > 1 else 'same', use_bias=False,
                             dilation_rate=dilation, kernel_initializer=HE, name=f'{name}_conv{number}')(x)
        x = self.norm(filters, f'{name}_norm{number}')(x)
        return keras.layers.ReLU(name=f'{name}_relu{number}')(x) if relu else x

    def norm(self, channels, name):
        return BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, name=name)


@keras.saving.register_keras_serializable(package='congruent')
class StandardizedConv2D(keras.layers.Conv2D):
    """A convolution by kernels whose numbers for each output have mean 0 and variance 1: arXiv:1903.10520."""

    def convolution_op(self, inputs, kernel):
        kernel = ops.cast(kernel, 'float32')
        mean, variance = ops.moments(kernel, axes=(0, 1, 2), keepdims=True)
        kernel = (kernel - mean) * ops.rsqrt(variance + 1e-10)
        return super().convolution_op(inputs, ops.cast(kernel, inputs.dtype))


class _Group(_Batch):

    convolution = StandardizedConv2D

    def norm(self, channels, name):
        groups = math.gcd(32, max(channels // 2, 1))
        return keras.layers.GroupNormalization(groups, epsilon=EPSILON, name=name)
