import keras
import numpy as np
import pytest
import tensorflow as tf

from errors import UserError
from training.optimizer import make_optimizer, optimizers

GRADIENTS = [[0.5, -1.5], [2., 0.25], [-0.125, 1.]]


def variables():
    return [keras.Variable([[1., -2.]], name='kernel'), keras.Variable([0.5, 3.], name='bias')]


def gradients(i):
    return [tf.constant([GRADIENTS[i]]), tf.constant(GRADIENTS[(i + 1) % 3])]


@pytest.mark.parametrize('name', sorted(optimizers()))
def test_each_optimizer_of_keras_gives_keras_own_updates(name):
    ours, theirs = variables(), variables()
    optimizer = make_optimizer(name, ours, 0.1)
    undecayed = {'adamw': {'weight_decay': 0.}, 'muon': {'weight_decay': None, 'adam_weight_decay': None}}
    reference = optimizers()[name](0.1, **undecayed.get(name, {}))
    for i in range(3):
        optimizer.apply(gradients(i), ours)
        reference.apply(gradients(i), theirs)
    for a, b in zip(ours, theirs):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
        assert np.abs(a.numpy() - variables()[0 if a.shape.rank == 2 else 1].numpy()).max() > 1e-4    # it did move


@pytest.mark.parametrize('name, meant', [('adma', 'adam'), ('adamm', 'adam'), ('sdg', 'sgd'), ('adammax', 'adamax'),
                                         ('rmspop', 'rmsprop'), ('nadma', 'nadam')])
def test_a_slip_in_a_name_is_understood(name, meant):
    with pytest.raises(UserError, match=f"Received: optimizer='{name}'. Did you mean {meant}\\?$"):
        make_optimizer(name, variables(), 0.1)


def test_sgd_with_nesterov_momentum_by_hand():
    w = [keras.Variable([[1.]], name='w')]
    optimizer = make_optimizer('sgd', w, 0.1, momentum=0.9, nesterov=True)
    velocity, expected = 0., 1.
    for gradient in (1., -2., 0.5):
        optimizer.apply([tf.constant([[gradient]])], w)
        velocity = 0.9 * velocity - 0.1 * gradient
        expected += 0.9 * velocity - 0.1 * gradient
    assert float(w[0].numpy()[0, 0]) == pytest.approx(expected, rel=1e-6)


def test_weight_decay_is_decoupled_and_leaves_vectors_alone():
    ours = variables()
    make_optimizer('adamw', ours, 0.1, weight_decay=0.5).apply([tf.zeros([1, 2]), tf.zeros([2])], ours)
    np.testing.assert_allclose(ours[0].numpy(), [[0.95, -1.9]], rtol=1e-6)       # times 1 - 0.1 * 0.5
    np.testing.assert_array_equal(ours[1].numpy(), [0.5, 3.])


def test_moving_average_follows_its_formula():
    w = [keras.Variable([[1.]], name='w')]
    optimizer = make_optimizer('sgd', w, 1., ema=0.75)
    average = None
    for value in (2., 4., -1.):
        optimizer.apply([w[0].value - value], w)      # sets w to `value`
        average = value if average is None else 0.75 * average + 0.25 * value
    assert float(optimizer._model_variables_moving_average[0].numpy()[0, 0]) == pytest.approx(average, rel=1e-6)


@pytest.mark.parametrize('name, options, message', [
    ('adamm', {}, r'`optimizer` must be one of .*adam.*Received: optimizer=\'adamm\'. Did you mean adam'),
    ('adam', {'momentum': 0.9}, '`momentum` is not an option of adam. Received: momentum=0.9'),
    ('sgd', {'beta_2': 0.98}, '`beta_2` is not an option of sgd. Received: beta_2=0.98'),
    ('rmsprop', {'nesterov': True}, '`nesterov` is not an option of rmsprop'),
])
def test_errors(name, options, message):
    with pytest.raises(UserError, match=message):
        make_optimizer(name, variables(), 0.1, **options)
