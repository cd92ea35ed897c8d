"""The LSTM against its equations in NumPy, and the order in which it reads an image."""

import numpy as np

import models


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_lstm(x, kernel, recurrent_kernel, bias):
    """x [T, F] -> the last state [50]; the gates are input, forget, candidate, output, in Keras's order."""
    state = memory = np.zeros(50)
    for step in x:
        gates = step @ kernel + state @ recurrent_kernel + bias
        i, f, g, o = np.split(gates, 4)
        memory = sigmoid(f) * memory + sigmoid(i) * np.tanh(g)
        state = sigmoid(o) * np.tanh(memory)
    return state


def test_sequence_against_numpy():
    model = models.build('lstm', {'input_shape': (9, 6), 'outputs': 4})
    random = np.random.default_rng(0)
    weights = [random.standard_normal(weight.shape).astype('float32') * 0.3 for weight in model.weights]
    model.set_weights(weights)
    x = random.standard_normal((3, 9, 6)).astype('float32')
    kernel, recurrent_kernel, bias, output_kernel, output_bias = [weight.astype('float64') for weight in weights]
    states = np.stack([numpy_lstm(row, kernel, recurrent_kernel, bias) for row in x])
    np.testing.assert_allclose(model(x), states @ output_kernel + output_bias, atol=1e-5)


def test_image_is_read_row_by_row():
    image = models.build('lstm', {'input_shape': (5, 4, 3), 'outputs': 2})
    sequence = models.build('lstm', {'input_shape': (5, 12), 'outputs': 2})
    sequence.set_weights(image.get_weights())
    x = np.random.default_rng(0).random((2, 5, 4, 3), 'float32')
    rows = np.stack([[np.concatenate(list(row)) for row in example] for example in x])  # the pixels side by side
    np.testing.assert_allclose(image(x), sequence(rows), atol=1e-6)
