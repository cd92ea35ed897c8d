"""Counted operations against counts by hand."""

import keras
import pytest
import tensorflow as tf

import models
from training.flops import count_flops

B = 16


def forward(model, *specs):
    return tf.function(lambda *x: model(*x)).get_concrete_function(*specs)


def forward_backward(model, spec):
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=True))
        return loss, tape.gradient(loss, [v.value for v in model.trainable_variables])
    return tf.function(step).get_concrete_function(spec)


def image(*shape):
    return tf.TensorSpec([B, *shape], tf.float32)


def test_mlp_forward_and_backward():
    layers = [784 * 256, 256 * 128, 128 * 10]
    model = models.build('mlp', {'input_shape': (28, 28, 1), 'outputs': 10})
    assert count_flops(forward(model, image(28, 28, 1))) == 2 * B * sum(layers)
    # Backward: the weights' gradient everywhere, the input's everywhere but at the first layer.
    assert count_flops(forward_backward(model, image(28, 28, 1))) == 2 * B * (3 * sum(layers) - layers[0])


def test_cnn_forward_and_backward():
    convolution, dense = 62 * 62 * 32 * 3 * 3 * 3, [31 * 31 * 32 * 64, 64 * 10]
    model = models.build('cnn', {'input_shape': (64, 64, 3), 'outputs': 10})
    assert count_flops(forward(model, image(64, 64, 3))) == 2 * B * (convolution + sum(dense))
    assert count_flops(forward_backward(model, image(64, 64, 3))) == 2 * B * (2 * convolution + 3 * sum(dense))


def test_lstm_counts_every_time_step():
    model = models.build('lstm', {'input_shape': (28, 28, 1), 'outputs': 10})
    by_hand = 2 * B * (28 * (28 + 50) * 4 * 50 + 50 * 10)
    assert count_flops(forward(model, image(28, 28, 1))) == by_hand
    assert count_flops(forward_backward(model, image(28, 28, 1))) == pytest.approx(3 * by_hand, rel=0.15)


@pytest.mark.parametrize('name, gates', [('lstm', 4), ('gru', 3)])
@pytest.mark.parametrize('bidirectional', [False, True])
def test_the_recurrent_layers_of_cudnn_count_as_the_others_do(monkeypatch, name, gates, bidirectional):
    """Keras takes them where it sees a GPU; here they are traced and not run."""
    monkeypatch.setattr(tf.config, 'list_logical_devices', lambda kind=None: ['a GPU'])
    layer = {'lstm': keras.layers.LSTM, 'gru': keras.layers.GRU}[name](50)
    model = keras.Sequential([keras.Input((28, 7)), keras.layers.Bidirectional(layer) if bidirectional else layer])
    by_hand = (1 + bidirectional) * 2 * B * 28 * (7 + 50) * gates * 50
    traced = forward(model, image(28, 7))
    assert 'CudnnRNNV3' in {op.type for op in traced.graph.get_operations()}
    assert count_flops(traced) == by_hand
    assert count_flops(forward_backward(model, image(28, 7))) == 3 * by_hand


def test_transformer_forward():
    s, t, d, f, layers, words = 12, 10, 128, 512, 2, 50
    model = models.build('transformer', {'source_vocabulary_size': 40, 'target_vocabulary_size': words})
    spec = {'source': tf.TensorSpec([B, s], tf.int32), 'source_mask': tf.TensorSpec([B, s], tf.bool),
            'target': tf.TensorSpec([B, t], tf.int32)}
    encoder = s * (4 * d * d + 2 * d * f) + 2 * s * s * d
    decoder = t * (6 * d * d + 2 * d * f) + 2 * s * d * d + 2 * t * t * d + 2 * t * s * d
    by_hand = 2 * B * (layers * (encoder + decoder) + t * d * words)
    assert count_flops(forward(model, spec)) == by_hand


def test_branches_and_calls_are_followed():
    dense = keras.layers.Dense(4, use_bias=False)
    dense.build([None, 8])

    @tf.function
    def called(x):
        return dense(x)

    @tf.function
    def function(x):
        return tf.cond(tf.reduce_sum(x) > 0, lambda: called(x), lambda: tf.zeros([B, 4]))
    assert count_flops(function.get_concrete_function(image(8))) == 2 * B * 8 * 4
