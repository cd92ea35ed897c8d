"""The Transformer: what it may look at, what it is made of, and how it compiles."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from errors import UserError
from interpretability.taps import attention_weights
from models.transformer import Transformer, transformer
from models.transformer_layers import DecoderLayer, EncoderLayer, TokenEmbedding, sinusoidal_positions
from tests.models.examples import source_of

BOTH_NORMS = pytest.mark.parametrize('norm', ['pre', 'post'])
SOURCE = np.array([[5, 6, 7, 0, 0], [9, 8, 3, 2, 4]], 'int32')
INPUTS = {
    **source_of(SOURCE),
    'target': np.array([[1, 4, 3, 0], [1, 2, 6, 7]], 'int32'),
}


def small(**options):
    model = Transformer(11, 13, **{'num_layers': 2, 'd_model': 16, 'd_ff': 32, 'heads': 4, **options})
    model.build({'source': (None, None), 'source_mask': (None, None), 'target': (None, None)})
    return model


def randoms(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype('float32')


@BOTH_NORMS
def test_a_future_word_cannot_change_a_past_logit(norm):
    model = small(norm=norm)
    before = np.array(model(INPUTS))
    for t in range(1, 4):
        target = INPUTS['target'].copy()
        target[:, t] = 12
        after = np.array(model({**INPUTS, 'target': target}))
        np.testing.assert_array_equal(after[:, :t], before[:, :t])
        assert (np.abs(after[:, t:] - before[:, t:]).max(-1) > 1e-4).all()


@BOTH_NORMS
def test_source_padding_cannot_change_a_logit(norm):
    model = small(norm=norm)
    first = {key: value[:1] for key, value in INPUTS.items()}
    before = np.array(model(first))
    for source in ([5, 6, 7], [5, 6, 7, 0, 0, 0, 0, 0]):
        np.testing.assert_allclose(model({**first, **source_of(np.array([source], 'int32'))}), before, atol=1e-5)
    assert np.abs(model({**first, **source_of(np.array([[5, 6, 7, 8]], 'int32'))}) - before).max() > 1e-3
    # The embedding of padding is not read either, to the last bit.
    table = model.source_embedding.table
    table.assign(table + 100 * np.eye(11, 1, dtype='float32') * randoms(16))  # row 0
    np.testing.assert_array_equal(model(first), before)


@BOTH_NORMS
def test_target_padding_cannot_change_a_logit_of_a_word(norm):
    model = small(norm=norm)
    before = np.array(model(INPUTS))
    table = model.target_embedding.table
    table.assign(table + 100 * np.eye(13, 1, dtype='float32') * randoms(16))  # row 0
    after = np.array(model(INPUTS))
    words = INPUTS['target'] != 0
    assert (np.abs(after - before)[~words].max(-1) > 1e-2).all()
    np.testing.assert_array_equal(after[words][:, 1:], before[words][:, 1:])  # the table's row also scores word 0


@BOTH_NORMS
def test_an_example_of_nothing_but_padding_is_finite(norm):
    nothing = {key: np.zeros_like(value) for key, value in INPUTS.items()}
    assert np.isfinite(small(norm=norm)(nothing)).all()


def test_a_target_that_starts_with_0_does_not_see_its_future():
    model = small()
    target = np.array([[0, 4, 3, 5]], 'int32')
    source = source_of(SOURCE[:1])
    before, after = (np.array(model({**source, 'target': t})) for t in (target, target * [1, 1, 2, 2]))
    np.testing.assert_array_equal(before[:, :2], after[:, :2])


def test_positions_are_those_of_the_paper():
    positions = np.array(sinusoidal_positions(200, 16))
    assert positions.shape == (200, 16)
    for position in (0, 1, 17, 199):
        for i in range(8):
            angle = position / 10000**(2 * i / 16)
            assert positions[position, 2 * i] == pytest.approx(math.sin(angle), abs=3e-5)
            assert positions[position, 2 * i + 1] == pytest.approx(math.cos(angle), abs=3e-5)


def test_the_order_of_the_words_matters():
    model = small()
    memory = np.array(model.encode(source_of(np.array([[5, 6, 7]]))))
    swapped = np.array(model.encode(source_of(np.array([[6, 5, 7]]))))
    assert np.abs(swapped[0, [1, 0, 2]] - memory[0]).max() > 1e-2  # equal without positions


def test_feed_forward_is_equation_2():
    layer = EncoderLayer(16, 32, 4)
    x = randoms(2, 5, 16)
    layer(x)
    w1, w2 = layer.feed_forward_in.kernel.numpy(), layer.feed_forward_out.kernel.numpy()
    b1, b2 = randoms(32), randoms(16)
    layer.feed_forward_in.bias.assign(b1)
    layer.feed_forward_out.bias.assign(b2)
    np.testing.assert_allclose(layer.feed_forward(x), np.maximum(x @ w1 + b1, 0) @ w2 + b2, atol=1e-5)


def test_embedding_is_scaled_and_tied():
    layer = TokenEmbedding(11, 16)
    x = np.array(layer(np.array([[3, 4]])))
    table = layer.get_weights()[0]
    np.testing.assert_allclose(x[0], table[[3, 4]] * 4, rtol=1e-6)
    np.testing.assert_allclose(layer.logits(x), x @ table.T, rtol=1e-5, atol=1e-5)


def test_the_embedding_of_the_target_makes_the_logits():
    model = small()
    before = np.array(model(INPUTS))
    table = model.target_embedding.table
    changed = table.numpy()
    changed[12] = 0  # a word that no target holds
    table.assign(changed)
    after = np.array(model(INPUTS))
    np.testing.assert_array_equal(after[..., 12], np.zeros((2, 4)))
    np.testing.assert_allclose(after[..., :12], before[..., :12], atol=1e-6)


def test_shared_embeddings_are_one_weight():
    model = transformer(11, 11, share_embeddings=True)
    assert model.source_embedding is model.target_embedding
    assert [weight.path for weight in model.weights if 'embedding' in weight.path] == [
        'transformer/shared_embedding/table']


@BOTH_NORMS
def test_where_the_layers_normalise(norm):
    """The residual path of a pre-norm layer is the identity; a post-norm layer's output is normalised."""
    x = randoms(2, 5, 16) * 3 + 1
    encoder, decoder = (cls(16, 32, 4, norm=norm) for cls in (EncoderLayer, DecoderLayer))
    encoder(x), decoder(x, x)
    for layer in (encoder, decoder):
        for weight in layer.weights:
            if weight.name in ('kernel', 'bias'):
                weight.assign(np.zeros(weight.shape))  # every sub-layer adds 0
    normalised = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
    expected = x if norm == 'pre' else normalised
    np.testing.assert_allclose(encoder(x), expected, atol=1e-5)
    np.testing.assert_allclose(decoder(x, x), expected, atol=1e-5)


def test_pre_norm_normalises_both_stacks_at_the_end():
    model = small(norm='pre')
    memory = np.array(model.encode(INPUTS))
    np.testing.assert_allclose(memory.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(memory.std(-1), 1, atol=1e-4)
    model.decoder_norm.gamma.assign(np.zeros(16))
    np.testing.assert_array_equal(model(INPUTS), np.zeros((2, 4, 13)))


def test_encode_then_decode_is_call():
    model = small()
    memory = model.encode(INPUTS)
    assert memory.shape == (2, 5, 16)
    np.testing.assert_array_equal(model.decode(INPUTS['target'], memory, INPUTS), model(INPUTS))


def test_training_reaches_encode_and_decode():
    model = small(dropout=0.5)
    memory = model.encode(INPUTS)
    assert np.abs(model.encode(INPUTS, training=True) - memory).max() > 1e-3
    arguments = INPUTS['target'], memory, INPUTS
    assert np.abs(model.decode(*arguments, training=True) - model.decode(*arguments)).max() > 1e-3


def test_attention_weights():
    model = small()
    with attention_weights(model) as recorded:
        logits = model(INPUTS)
    np.testing.assert_array_equal(model(INPUTS), logits)
    weights = {name.removeprefix(f'{model.name}/'): value for name, value in recorded.items()}
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    assert shapes == {
        'encoder_0/self_attention': (2, 4, 5, 5), 'encoder_1/self_attention': (2, 4, 5, 5),
        'decoder_0/self_attention': (2, 4, 4, 4), 'decoder_0/cross_attention': (2, 4, 4, 5),
        'decoder_1/self_attention': (2, 4, 4, 4), 'decoder_1/cross_attention': (2, 4, 4, 5)}
    for name, value in weights.items():
        np.testing.assert_allclose(np.sum(value, -1), 1, atol=1e-5)
        if name.startswith('decoder') and 'self' in name:
            np.testing.assert_array_equal(value, np.tril(value))
        else:
            assert np.all(np.array(value)[0, ..., 3:] == 0)  # the padding of the first source


@pytest.mark.slow
@pytest.mark.parametrize('policy', ['float32', 'mixed_bfloat16', 'mixed_float16'])
def test_training_step_compiles_with_xla(policy):
    model = small(dtype=policy, dropout=0.0, num_layers=1)

    def step(source, target):
        with tf.GradientTape() as tape:
            logits = model({**source_of(source), 'target': target}, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(target, logits))
        return loss, [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, model.trainable_variables)]

    arguments = tf.constant(SOURCE), tf.constant(INPUTS['target'])
    loss, gradients = step(*arguments)
    xla_loss, xla_gradients = tf.function(step, jit_compile=True)(*arguments)
    assert xla_loss.dtype == 'float32'
    np.testing.assert_allclose(xla_loss, loss, rtol=1e-5 if policy == 'float32' else 3e-2)
    for weight, gradient, xla_gradient in zip(model.trainable_variables, gradients, xla_gradients, strict=True):
        assert np.isfinite(xla_gradient).all() and np.abs(xla_gradient).max() > 0, weight.path
        if policy == 'float32':
            np.testing.assert_allclose(xla_gradient, gradient, atol=1e-5, err_msg=weight.path)


def test_any_length_when_called_in_a_functional_model():
    model = small()
    inputs = {name: keras.Input((None,), dtype=array.dtype.name, name=name) for name, array in INPUTS.items()}
    functional = keras.Model(inputs, model(inputs))
    assert functional.output_shape == (None, None, 13)
    np.testing.assert_allclose(functional(INPUTS), model(INPUTS), atol=1e-6)


@pytest.mark.slow
def test_learns_to_reverse():
    keras.utils.set_random_seed(0)
    model = small(num_layers=1, d_model=32, d_ff=64, dropout=0.0)
    optimizer = keras.optimizers.Adam(1e-2)
    optimizer.build(model.trainable_variables)
    source = np.random.default_rng(0).integers(2, 8, (256, 4), dtype='int32')
    words = source[:, ::-1]
    target = np.concatenate([np.ones((256, 1), 'int32'), words[:, :-1]], axis=1)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            logits = model({**source_of(source), 'target': target}, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(words, logits))
        optimizer.apply(tape.gradient(loss, model.trainable_variables))
        return loss

    losses = [float(step()) for _ in range(80)]
    # Every word is one of 6 at random: without the source the loss cannot fall much below log(6) = 1.79.
    assert losses[0] > 1.79 and losses[-1] < 0.3


def test_d_model_must_be_even():
    with pytest.raises(UserError, match='`d_model` must be even.* Received: d_model=9'):
        small(d_model=9, heads=3)
