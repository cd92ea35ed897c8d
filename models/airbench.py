"""The small network of arXiv:2404.00498 that learns CIFAR-10 in few epochs, "airbench94" there."""

import keras
from keras import ops

from models.batch_norm import BatchNormalization
from models.shapes import check_input_shape

PATCH = 2                               # side in pixels of what the first layer sees
EPSILON, MOMENTUM = 1e-12, 0.6          # of the norms; torch's momentum 0.4 is Keras's 0.6
BIAS_RATE = 64                          # learning rate of the norms' biases, in learning rates
OUTPUT_SCALE = 1 / 9


def airbench(input_shape, outputs=10, width=48):
    """Image [B, H, W, C] in [0, 1] -> logits [B, outputs], float32.

    A whitening of 2x2 patches by filters of the training data, three blocks of two 3x3 convolutions with width, 4 width
    and 4 width filters, and a linear layer. For (32, 32, 3) and 10 outputs, and with the moving statistics, it has
    1,114,200 parameters at width 48, and 1,973,944 at the paper's, 64.

    As in the paper: no padding of the first layer, pooling before the first norm of a block, norms that have a bias
    and no scale, exact GELU, kernels that begin as the identity. Its bias of the first layer learns for 3 epochs only;
    here it learns throughout.

    Args:
        width: filters of the first block.
    """
    check_input_shape(input_shape, '(height, width, channels), height and width at least 2', ranks=(3,), least=PATCH)
    inputs = keras.Input(input_shape, name='inputs')
    # float32: filters of the smallest eigenvalues would make much of the rounding of pixels.
    x = Whitening(dtype='float32', name='whitening')(inputs)  # [B, H - 1, W - 1, 8 C]
    x = _gelu(x, 'whitening_gelu')
    for i, filters in enumerate((width, 4 * width, 4 * width), 1):
        x = _block(x, filters, f'block{i}')
    x = keras.layers.Flatten(name='flatten')(_pool(x, 3, 'pool'))  # [B, 3, 3, 4 width] -> [B, 4 width]
    # The paper scales the logits; before a layer without a bias it is the same, and the layer stays the last.
    x = keras.layers.Rescaling(OUTPUT_SCALE, name='scale')(x)
    x = keras.layers.Dense(outputs, use_bias=False, kernel_initializer=_torch_uniform(), dtype='float32',
                           name='logits')(x)
    return keras.Model(inputs, x, name='airbench')


def _block(x, filters, name):
    """x [B, h, w, c] -> [B, h // 2, w // 2, filters]"""
    x = _convolution(x, filters, f'{name}_conv1')
    x = _pool(x, 2, f'{name}_pool')
    x = _gelu(_norm(x, f'{name}_norm1'), f'{name}_gelu1')
    x = _convolution(x, filters, f'{name}_conv2')
    return _gelu(_norm(x, f'{name}_norm2'), f'{name}_gelu2')


def _convolution(x, filters, name):
    return keras.layers.Conv2D(filters, 3, padding='same', use_bias=False, kernel_initializer=Dirac(), name=name)(x)


def _pool(x, size, name):
    """A side of fewer pixels is pooled as a whole: images smaller than the paper's have some."""
    return keras.layers.MaxPooling2D([min(size, side) for side in x.shape[1:3]], name=name)(x)


def _norm(x, name):
    x = BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, scale=False, center=False, name=name)(x)
    return Bias(BIAS_RATE, name=f'{name}_bias')(x)


def _gelu(x, name):
    return keras.layers.Activation('gelu', name=name)(x)


def _torch_uniform(seed=None):
    """How torch's linear layers and convolutions begin: uniform up to 1 / sqrt(inputs of an output)."""
    return keras.initializers.VarianceScaling(1 / 3, 'fan_in', 'uniform', seed)


@keras.saving.register_keras_serializable(package='congruent')
class Dirac(keras.initializers.Initializer):
    """Kernels [height, width, inputs, outputs] whose first outputs repeat the inputs; the others are torch's default.

    torch.nn.init.dirac_ of as many outputs as there are inputs, or of all where there are fewer. Sides are odd.
    """

    def __init__(self, seed=None):
        self.seed = seed

    def __call__(self, shape, dtype=None):
        height, width, inputs, outputs = shape
        others = _torch_uniform(self.seed)(shape, dtype)
        centre = ops.eye(inputs, outputs, dtype=others.dtype)[None, None]  # [1, 1, inputs, outputs]
        same = ops.pad(centre, [(height // 2, height // 2), (width // 2, width // 2), (0, 0), (0, 0)])
        return ops.where(ops.arange(outputs) < inputs, same, others)

    def get_config(self):
        return {'seed': self.seed}


@keras.saving.register_keras_serializable(package='congruent')
class Bias(keras.layers.Layer):
    """Adds to x [B, ..., C] a bias [C] that learns `rate` times as fast as other weights, under SGD of any momentum.

    The variable is the bias divided by sqrt(rate): so its gradient is sqrt(rate) times that of the bias, and so is what
    a change of it does. No optimizer needs to know. One that normalises gradients, as Adam, learns sqrt(rate) times as
    fast.
    """

    def __init__(self, rate=1., **options):
        super().__init__(**options)
        self.rate = rate

    def build(self, input_shape):
        self.bias = self.add_weight((input_shape[-1],), initializer='zeros', name='bias')

    def call(self, inputs):
        return inputs + self.rate ** 0.5 * self.bias

    def get_config(self):
        return {**super().get_config(), 'rate': self.rate}


@keras.saving.register_keras_serializable(package='congruent')
class Whitening(keras.layers.Layer):
    """A convolution of 2x2 patches, [B, H, W, C] -> [B, H - 1, W - 1, 8 C], by filters that do not learn; a bias does.

    A new layer gives each pixel of a patch and its negative. A trainer gives it what `from_images` finds in the data,
    when a run begins; from then on these are weights like others, in checkpoints and exports.
    """

    def build(self, input_shape):
        channels = input_shape[-1]
        self.kernel = self.add_weight((PATCH, PATCH, channels, 2 * PATCH ** 2 * channels), initializer=_pixels,
                                      trainable=False, name='kernel')
        self.bias = self.add_weight((self.kernel.shape[-1],), initializer='zeros', name='bias')

    def call(self, inputs):
        return ops.conv(inputs, self.kernel, padding='valid') + self.bias

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        return batch, height - PATCH + 1, width - PATCH + 1, 2 * PATCH ** 2 * channels

    def from_images(self, images, epsilon=5e-4):
        """The weights after which the outputs of patches of such images have variance 1, and no correlation.

        The paper, section 3.2: eigenvectors of the patches' covariance, each divided by the root of its eigenvalue +
        epsilon, and their negatives, for images of mean 0 and deviation 1 by channel. Here images are in [0, 1], and
        kernel and bias do that too.

        Args:
            images: array [N, H, W, C], what the model reads.

        Returns:
            {name of a weight: float32 array}: kernel [2, 2, C, 8 C] and bias [8 C]. Equal images give equal bits.
        """
        x = ops.convert_to_tensor(images, 'float64')
        mean, deviation = ops.mean(x, (0, 1, 2)), ops.std(x, (0, 1, 2))
        deviation = ops.where(deviation < 1e-3, ops.ones_like(deviation), deviation)  # of one value, if pixels have 256
        patches = ops.image.extract_patches((x - mean) / deviation, PATCH, strides=1)  # [N, H - 1, W - 1, 4 C]
        patches = ops.reshape(patches, (-1, patches.shape[-1]))
        # Eigenvectors are columns, the smallest first; the sign of each is anybody's choice.
        values, vectors = ops.eigh(ops.matmul(ops.transpose(patches), patches) / len(patches))
        vectors = ops.flip(vectors, 1) / ops.sqrt(ops.flip(values) + epsilon)
        largest = ops.take_along_axis(vectors, ops.argmax(ops.abs(vectors), 0, keepdims=True), 0)
        kernel = _both_signs(vectors * ops.sign(largest)) / ops.reshape(deviation, (-1, 1))
        bias = -ops.sum(kernel * ops.reshape(mean, (-1, 1)), (0, 1, 2))
        return {name: ops.convert_to_numpy(ops.cast(value, 'float32'))
                for name, value in (('kernel', kernel), ('bias', bias))}


def _pixels(shape, dtype=None):
    """The filters of a new Whitening: the pixels of a patch, and their negatives."""
    return _both_signs(ops.eye(shape[-1] // 2, dtype=dtype))


def _both_signs(vectors):
    """Filters, columns of [4 C, 4 C] -> a kernel [2, 2, C, 8 C]."""
    return ops.reshape(ops.concatenate([vectors, -vectors], 1), (PATCH, PATCH, -1, 2 * vectors.shape[1]))
