"""Our BatchNormalization against Keras's and PyTorch's, and on JAX. On several replicas: test_equality_replicas.py."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.batch_norm import BatchNormalization
from tests.conftest import ROOT
from training import batch_norm

SHAPES = {'vector': ((16, 5), -1), 'image': ((4, 6, 7, 3), -1), 'channels first': ((4, 3, 6, 7), 1)}


def identity(tensor):
    """What an all-reduce over one replica is; it makes the layer take its path over several."""
    return tensor


HOOKS = {'plain': {}, 'all-reduce': {'all_reduce': identity}, 'fused': {'fused': batch_norm.fused}}


def step(layer, x, upstream):
    """Returns (outputs, gradients of the input and of what of gamma and beta there is, moving mean, variance)."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
        loss = tf.reduce_sum(tf.cast(y, tf.float32) * upstream)
    gradients = tape.gradient(loss, [x, *(v.value for v in layer.trainable_variables)])
    return [np.array(t) for t in (y, *gradients, layer.moving_mean, layer.moving_variance)]


def example(shape, axis, mean=3., seed=0):
    """(x, upstream gradient, [gamma, beta, moving mean, moving variance])"""
    random = np.random.default_rng(seed)
    channels = shape[axis]
    weights = [random.uniform(0.5, 2, channels), random.standard_normal(channels), random.standard_normal(channels),
               random.uniform(0.5, 2, channels)]
    return (random.normal(mean, 2, shape).astype('float32'), random.standard_normal(shape).astype('float32'),
            [weight.astype('float32') for weight in weights])


def built(cls, shape, weights, all_reduce=None, fused=None, **options):
    layer = cls(**options)
    layer.build((None, *shape[1:]))
    lacking = [not options.get('scale', True), not options.get('center', True), False, False]
    layer.set_weights([weight for weight, none in zip(weights, lacking) if not none])
    if cls is BatchNormalization:
        layer.all_reduce, layer.fused = all_reduce, fused
    return layer


def kernels(layer, x, training=True):
    """How many fused norms are in the graph of a call."""
    graph = tf.function(lambda: layer(x, training=training)).get_concrete_function().graph
    return sum(op.type.startswith('FusedBatchNorm') for op in graph.get_operations())


@pytest.mark.parametrize('hook', HOOKS)
@pytest.mark.parametrize('name', SHAPES)
def test_it_is_the_layer_of_keras(name, hook):
    shape, axis = SHAPES[name]
    x, upstream, weights = example(shape, axis)
    ours = built(BatchNormalization, shape, weights, **HOOKS[hook], axis=axis)
    theirs = built(keras.layers.BatchNormalization, shape, weights, axis=axis)
    for a, b in zip(step(ours, x, upstream), step(theirs, x, upstream), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6 * np.abs(b).max(), rtol=0)
    np.testing.assert_array_equal(ours(x), built(keras.layers.BatchNormalization, shape, ours.get_weights(),
                                                 axis=axis)(x))


@pytest.mark.parametrize('hook', HOOKS)
def test_it_is_the_layer_of_pytorch(hook):
    torch = pytest.importorskip('torch', reason='PyTorch is not installed')
    x, upstream, weights = example((4, 6, 7, 3), -1)
    ours = built(BatchNormalization, x.shape, weights, **HOOKS[hook], momentum=0.9, epsilon=1e-5)
    layer = torch.nn.BatchNorm2d(3)           # momentum 0.1, counted from the other side
    with torch.no_grad():
        for variable, weight in zip((layer.weight, layer.bias, layer.running_mean, layer.running_var), weights):
            variable.copy_(torch.tensor(weight))
    images = torch.tensor(x.transpose(0, 3, 1, 2)).requires_grad_()
    y = layer(images)
    (y * torch.tensor(upstream.transpose(0, 3, 1, 2))).sum().backward()
    # PyTorch moves by the variance of a sample, n / (n - 1) of the population's.
    n, old = x.size // 3, weights[3]
    moving_variance = 0.9 * old + (layer.running_var.numpy() - 0.9 * old) * (n - 1) / n
    expected = [y.detach().numpy().transpose(0, 2, 3, 1), images.grad.numpy().transpose(0, 2, 3, 1),
                layer.weight.grad.numpy(), layer.bias.grad.numpy(), layer.running_mean.numpy(), moving_variance]
    for a, b in zip(step(ours, x, upstream), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=5e-6 * np.abs(b).max(), rtol=0)


@pytest.mark.parametrize('shape', [(4, 6, 7, 3), (3, 1, 5, 1), (2, 1, 1, 3), (1, 1, 1, 3)])
@pytest.mark.parametrize('options', [{'scale': False}, {'center': False}, {'scale': False, 'center': False},
                                     {'momentum': 0.6, 'epsilon': 1e-12}], ids=str)
def test_one_kernel_is_the_layer_of_keras(shape, options):
    """One pixel has no deviation, of which epsilon's root makes a gradient that is rounding alone: no epsilon there."""
    x, upstream, weights = example(shape, -1)
    if shape == (1, 1, 1, 3):
        options = {**options, 'epsilon': 1e-3}
    ours = built(BatchNormalization, shape, weights, **HOOKS['fused'], **options)
    assert kernels(ours, x) == 1
    ours.set_weights(built(keras.layers.BatchNormalization, shape, weights, **options).get_weights())
    theirs = built(keras.layers.BatchNormalization, shape, weights, **options)
    scale = np.abs(weights[0] * upstream).max()      # beside which a gradient may vanish
    for a, b in zip(step(ours, x, upstream), step(theirs, x, upstream), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(np.abs(b).max(), scale), rtol=0)


def test_one_kernel_serves_training_on_float32_images_alone():
    x, _, weights = example((4, 6, 7, 3), -1)
    layer = built(BatchNormalization, x.shape, weights, **HOOKS['fused'])
    assert (kernels(layer, x), kernels(layer, x, training=False)) == (1, 0)
    layer.trainable = False
    assert kernels(layer, x) == 0
    for other, shape in ((BatchNormalization(dtype='mixed_bfloat16'), x.shape), (BatchNormalization(axis=1), x.shape),
                         (BatchNormalization(), (4, 3)), (BatchNormalization(), (4, 5, 3)),
                         (BatchNormalization(dtype='float64'), x.shape)):
        other.fused = batch_norm.fused
        assert kernels(other, np.ones(shape, 'float32')) == 0, other.get_config()
    layer = built(BatchNormalization, x.shape, weights, identity, **HOOKS['fused'])
    assert kernels(layer, x) == 0        # several replicas


def test_one_kernel_takes_a_batch_of_any_size():
    x, upstream, weights = example((4, 6, 7, 3), -1)
    layer = built(BatchNormalization, x.shape, weights, **HOOKS['fused'])
    call = tf.function(lambda x: layer(x, training=True), input_signature=[tf.TensorSpec([None, None, 7, 3])])
    expected = built(keras.layers.BatchNormalization, x.shape, weights)
    np.testing.assert_allclose(call(x), expected(x, training=True), atol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, expected.moving_variance, rtol=1e-5)


BITS = '''
import hashlib
import numpy as np, tensorflow as tf
from training.randomness import make_deterministic
make_deterministic()
random = np.random.default_rng(0)
x, upstream = (tf.constant(random.standard_normal((128, 32, 32, 16), np.float32)) for _ in range(2))
from models.batch_norm import BatchNormalization
from training import batch_norm
layer = BatchNormalization()
layer.fused = batch_norm.fused
layer.build(x.shape)
variables = [v.value for v in layer.weights]

@tf.function
def step():
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
        loss = tf.reduce_sum(y * upstream)
    return y, tape.gradient(loss, [x, *variables[:2]])

for _ in range(5):
    for variable, value in zip(variables, (1., 0., 0., 1.)):
        variable.assign(tf.fill(variable.shape, value))
    arrays = [*tf.nest.flatten(step()), *variables]
    print(hashlib.sha256(b''.join(np.array(array).tobytes() for array in arrays)).hexdigest())
'''


@pytest.mark.slow
def test_one_kernel_gives_equal_bits(run_python):
    """Of a batch that is divided over threads, five times in a process and in another one."""
    bits = [run_python('-c', BITS).stdout.split() for _ in range(2)]
    assert len(bits[0]) == 5 and len({*bits[0], *bits[1]}) == 1


ON_JAX = '''
import sys
import jax, keras, numpy as np
from models.batch_norm import BatchNormalization
assert keras.backend.backend() == 'jax'
given, out = np.load(sys.argv[1]), sys.argv[2]
results = {}
for name in ('plain', 'reduced'):
    layer = BatchNormalization()
    layer.build((None, *given['x'].shape[1:]))
    layer.set_weights([given[f'weight_{i}'] for i in range(4)])
    layer.all_reduce = (lambda tensor: tensor) if name == 'reduced' else None
    def loss(trainable, x):
        frozen = [v.value for v in layer.non_trainable_variables]
        y, frozen = layer.stateless_call(trainable, frozen, x, training=True)
        return (y * given['upstream']).sum(), (y, frozen)
    trainable = [v.value for v in layer.trainable_variables]
    (gammas, dx), (y, frozen) = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(trainable, given['x'])
    results |= {f'{name}_{i}': np.array(t) for i, t in enumerate((y, dx, *gammas, *frozen))}
np.savez(out, **results)
assert 'tensorflow' not in sys.modules
'''


def test_jax_and_tensorflow_agree(tmp_path):
    pytest.importorskip('jax')
    x, upstream, weights = example((4, 6, 7, 3), -1)
    np.savez(tmp_path / 'given.npz', x=x, upstream=upstream, **{f'weight_{i}': w for i, w in enumerate(weights)})
    done = subprocess.run([sys.executable, '-c', ON_JAX, tmp_path / 'given.npz', tmp_path / 'out.npz'], cwd=ROOT,
                          env={**os.environ, 'KERAS_BACKEND': 'jax', 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT)},
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    there = np.load(tmp_path / 'out.npz')
    for name, all_reduce in (('plain', None), ('reduced', identity)):
        here = step(built(BatchNormalization, x.shape, weights, all_reduce), x, upstream)
        for i, value in enumerate(here):
            np.testing.assert_allclose(there[f'{name}_{i}'], value, atol=5e-6 * np.abs(value).max(), rtol=0)


def test_a_small_variance_beside_a_large_mean_survives():
    """Once the moving mean is near: E[x^2] - E[x]^2 of float32 gives 4 +- 8 here."""
    x, upstream, weights = example((512, 3), -1, mean=1e4)
    weights[2][:] = 1e4 - 20            # ten standard deviations away
    layer = built(BatchNormalization, x.shape, weights, identity, momentum=0.)
    outputs, *_, variance = step(layer, x, upstream)
    exact = x.astype('float64').var(axis=0)
    np.testing.assert_allclose(variance, exact, rtol=1e-3)
    assert np.abs(outputs).max() < 20


@pytest.mark.parametrize('all_reduce', [None, identity])
@pytest.mark.parametrize('policy', ['mixed_float16', 'mixed_bfloat16'])
def test_statistics_are_float32_whatever_the_precision(policy, all_reduce):
    x = np.random.default_rng(0).normal(1000, 300, (64, 2)).astype('float16')     # whose squares overflow float16
    layer = BatchNormalization(dtype=policy, momentum=0.)
    layer.all_reduce = all_reduce
    y = layer(x, training=True)
    assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype
    assert {w.dtype for w in layer.weights} == {'float32'}
    seen = np.array(tf.cast(tf.cast(x, layer.compute_dtype), tf.float32))
    np.testing.assert_allclose(layer.moving_variance, seen.var(axis=0), rtol=1e-4)
    np.testing.assert_allclose(np.array(tf.cast(y, tf.float32)).std(axis=0), 1, atol=0.01)


def test_two_replicas_normalise_by_all_rows():
    """The sums of the other replica's rows are added, as an all-reduce would."""
    x, upstream, weights = example((12, 5), -1)
    whole = step(built(BatchNormalization, x.shape, weights), x, upstream)
    parts, sums = [x[:4], x[4:]], []        # of unequal size
    for part in parts:
        layer = built(BatchNormalization, x.shape, weights, lambda t: sums.append(t) or t)
        layer(part, training=True)
    y = []
    for part in parts:
        layer = built(BatchNormalization, x.shape, weights, lambda t: tf.add_n(sums))
        y.append(np.array(layer(part, training=True)))
        np.testing.assert_allclose(layer.moving_mean, whole[-2], rtol=1e-6)
        np.testing.assert_allclose(layer.moving_variance, whole[-1], rtol=1e-6)
    np.testing.assert_allclose(np.concatenate(y), whole[0], atol=1e-5)


def test_a_frozen_layer_and_inference_need_no_all_reduce():
    def fail(tensor):
        raise AssertionError('an all-reduce outside training')
    x, _, weights = example((12, 5), -1)
    layer = built(BatchNormalization, x.shape, weights, fail)
    expected = built(keras.layers.BatchNormalization, x.shape, weights)(x)
    np.testing.assert_array_equal(layer(x), expected)
    layer.trainable = False
    np.testing.assert_array_equal(layer(x, training=True), expected)


def test_weights_carry_over_and_the_hook_is_not_saved(tmp_path):
    def model(cls):
        keras.utils.set_random_seed(1)
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name='dense'), cls(name='norm')], name='m')
    ours, theirs = model(BatchNormalization), model(keras.layers.BatchNormalization)
    assert [w.path for w in ours.weights] == [w.path for w in theirs.weights]
    assert ours.get_layer('norm').get_config().keys() == theirs.get_layer('norm').get_config().keys()
    theirs.get_layer('norm').set_weights([np.full(3, value, 'float32') for value in (2, 3, 4, 5)])
    theirs.save_weights(tmp_path / 'm.weights.h5')
    ours.load_weights(tmp_path / 'm.weights.h5')
    ours.get_layer('norm').all_reduce = ours.get_layer('norm').fused = identity
    ours.save(tmp_path / 'm.keras')
    loaded = keras.models.load_model(tmp_path / 'm.keras')
    norm = loaded.get_layer('norm')
    assert type(norm) is BatchNormalization and norm.all_reduce is None and norm.fused is None
    x = np.ones((2, 4), 'float32')
    np.testing.assert_array_equal(loaded(x), theirs(x))


@pytest.mark.parametrize('option', ['synchronized', 'renorm'])
def test_options_that_it_does_not_have_are_refused(option):
    with pytest.raises(ValueError, match=f'`{option}` must be False.* Received: {option}=True'):
        BatchNormalization(**{option: True})


def test_a_mask_is_refused():
    with pytest.raises(ValueError, match='`mask` must be None'):
        BatchNormalization()(np.ones((2, 3, 4), 'float32'), mask=np.ones((2, 3), bool))
