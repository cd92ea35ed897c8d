"""airbench: the paper's network written with PyTorch's functions; its first layer, its initialisation and its bias."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import models
from models.airbench import PATCH, Bias, Dirac, Whitening, airbench
from training.optimizer import make_optimizer

WIDTH, OUTPUTS = 5, 7


def photographs(shape=(6, 32, 32, 3), seed=0):
    """Smooth images in [0, 1], whose channels and neighbouring pixels are alike."""
    random = np.random.default_rng(seed)
    common, own = random.standard_normal((*shape[:3], 1)), random.standard_normal(shape)
    images = np.cumsum(common + 0.3 * own, axis=2)
    images -= images.min((1, 2, 3), keepdims=True)
    return (images / images.max((1, 2, 3), keepdims=True)).astype('float32')


def whiten(layer, images, **options):
    for name, value in layer.from_images(images, **options).items():
        getattr(layer, name).assign(value)


def torch_network(torch, x, weights):
    """Logits of images [B, 3, 32, 32] in training, after KellerJordan/cifar10-airbench's airbench94.py."""
    functional = torch.nn.functional

    def norm(x, name):
        return functional.batch_norm(x, None, None, None, 8 * weights[f'{name}_bias/bias'], training=True, eps=1e-12)
    x = functional.gelu(functional.conv2d(x, weights['whitening/kernel'], weights['whitening/bias']))
    for i in (1, 2, 3):
        x = functional.max_pool2d(functional.conv2d(x, weights[f'block{i}_conv1/kernel'], padding='same'), 2)
        x = functional.gelu(norm(x, f'block{i}_norm1'))
        x = functional.conv2d(x, weights[f'block{i}_conv2/kernel'], padding='same')
        x = functional.gelu(norm(x, f'block{i}_norm2'))
    x = functional.max_pool2d(x, 3).flatten(1)
    return functional.linear(x, weights['logits/kernel']) / 9


def test_it_is_the_network_of_the_paper(measured):
    """E5: logits and the gradients of all weights; PyTorch computes in float64, in which sums lose nothing."""
    torch = pytest.importorskip('torch', reason='PyTorch is not installed')
    random, x = np.random.default_rng(3), photographs(seed=3)
    keras.utils.set_random_seed(3)
    model = airbench(x.shape[1:], OUTPUTS, WIDTH)
    whiten(model.get_layer('whitening'), x)
    model.set_weights([w if 'moving' in v.path else w + 0.05 * random.standard_normal(w.shape)
                       for v, w in zip(model.weights, model.get_weights())])
    upstream = random.standard_normal((len(x), OUTPUTS)).astype('float32')
    with tf.GradientTape() as tape:
        logits = model(x, training=True)
        loss = tf.reduce_sum(logits * upstream)
    ours = {'logits': logits} | dict(zip((v.path for v in model.trainable_variables), tape.gradient(
        loss, [v.value for v in model.trainable_variables])))

    to_torch = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
    weights = {v.path: torch.tensor(np.array(v, 'float64').transpose(to_torch[len(v.shape)])).requires_grad_()
               for v in model.weights if 'moving' not in v.path}
    expected = torch_network(torch, torch.tensor(x.transpose(0, 3, 1, 2)).double(), weights)
    (expected * torch.tensor(upstream)).sum().backward()
    theirs = {'logits': expected} | {path: weight.grad for path, weight in weights.items()}
    assert ours.keys() == theirs.keys() - {'whitening/kernel'}
    for name, value in ours.items():
        want = theirs[name].detach().numpy()
        want = want.transpose(np.argsort(to_torch[want.ndim])) if name != 'logits' else want
        worst = np.abs(np.array(value) - want).max() / np.abs(want).max()
        measured('E5', f'airbench, {name}', '1', worst)
        assert worst <= 1e-5, name


@pytest.mark.parametrize('channels', [1, 3])
def test_whitened_patches_have_variance_1_and_no_correlation(channels):
    images = 0.2 + 0.6 * photographs((50, 32, 32, channels))
    layer = Whitening()
    layer.build((None, *images.shape[1:]))
    whiten(layer, images)
    outputs = np.array(layer(images))
    assert outputs.shape == (50, 31, 31, 8 * channels)
    outputs = outputs.reshape(-1, 8 * channels).astype('float64')
    positive, negative = np.split(outputs, 2, axis=1)
    np.testing.assert_allclose(negative, -positive, atol=1e-3)
    covariance = np.cov(positive.T)
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=2e-2)
    # The largest first; the smallest eigenvalues are near to epsilon, which damps them.
    assert (np.diag(covariance) <= 1.02).all() and np.diag(covariance)[0] > 0.98
    np.testing.assert_allclose(positive.mean(0), 0, atol=0.1)
    whiten(layer, images, epsilon=0)
    outputs = np.array(layer(images)).reshape(-1, 8 * channels)[:, :4 * channels]
    np.testing.assert_allclose(np.cov(outputs.T), np.eye(4 * channels), atol=2e-2)


def test_the_sign_of_a_filter_does_not_depend_on_the_order_of_the_images():
    images, layer = photographs((40, 12, 12, 3)), Whitening()
    first, again, other = (layer.from_images(some) for some in (images, images.copy(), images[::-1]))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
        np.testing.assert_allclose(other[name], first[name], atol=1e-4 * np.abs(first[name]).max())


def test_a_channel_of_one_value_gives_no_large_weights():
    images = photographs((20, 12, 12, 3))
    images[..., 1] = 0.5
    found = Whitening().from_images(images)
    assert all(np.isfinite(value).all() and np.abs(value).max() < 200 for value in found.values())


def test_a_new_layer_gives_the_pixels_of_a_patch_and_their_negatives():
    images = photographs((2, 5, 5, 2))
    outputs = np.array(Whitening()(images))
    np.testing.assert_array_equal(outputs[:, 1, 2, :8].reshape(2, PATCH, PATCH, 2), images[:, 1:3, 2:4])
    np.testing.assert_array_equal(outputs[..., 8:], -outputs[..., :8])


@pytest.mark.parametrize('inputs, outputs', [(4, 4), (3, 8), (8, 3)])
def test_kernels_begin_as_those_of_torch(inputs, outputs):
    torch = pytest.importorskip('torch', reason='PyTorch is not installed')
    kernel = np.array(Dirac(seed=1)((3, 3, inputs, outputs), 'float32'))
    same = min(inputs, outputs)
    expected = torch.nn.init.dirac_(torch.empty(same, inputs, 3, 3)).numpy().transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(kernel[..., :same], expected)
    others = kernel[..., same:]
    bound = 1 / np.sqrt(9 * inputs)
    assert np.abs(others).max(initial=0) <= bound and (outputs <= inputs or np.abs(others).max() > 0.9 * bound)


def test_convolutions_begin_unlike_each_other():
    model = models.build('airbench', {'input_shape': (8, 8, 1)}, width=9)
    first, second = (np.array(model.get_layer(f'block2_conv{i}').kernel)[..., 9:] for i in (1, 2))
    assert not np.array_equal(first[:, :, :9, :20], second[:, :, :9, :20])


def test_a_bias_learns_64_times_as_fast_by_sgd():
    random, rate = np.random.default_rng(0), 64
    gradients = random.standard_normal((5, 3)).astype('float32')
    layer, plain = Bias(rate), tf.Variable(tf.zeros(3))
    layer.build((None, 3))
    options = {'momentum': 0.85, 'nesterov': True}
    ours = make_optimizer('sgd', layer.trainable_variables, 0.01, weight_decay=0.1, **options)
    theirs = keras.optimizers.SGD(0.01 * rate, **options)
    for gradient in gradients:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(tf.zeros((1, 3))) * gradient)
        ours.apply(tape.gradient(loss, [layer.bias.value]))
        theirs.apply([tf.constant(gradient)], [plain])
        np.testing.assert_allclose(layer(tf.zeros((1, 3)))[0], plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('sides, pooled', [((32, 32), 1), ((28, 28), 1), ((64, 32), 2), ((2, 2), 1), ((9, 40), 1)])
def test_images_of_other_sizes(sides, pooled):
    model = airbench((*sides, 3), 4, 2)
    assert model.get_layer('flatten').output.shape == (None, pooled * 8)
    assert model(np.zeros((2, *sides, 3), 'float32')).shape == (2, 4)
