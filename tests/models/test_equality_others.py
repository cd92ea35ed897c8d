"""E5: with the same weights our Transformer gives what keras-hub's gives. PyTorch's: test_equality_torch.py.

Theirs also has biases in attention, which the paper does not have: those are 0 here. All else is random.
"""

import keras
import keras_hub
import numpy as np

from tests.models.examples import source_of
from tests.models.random_transformer import (BOTH_NORMS, EPSILON, HEADS, LAYERS, REAL, SOURCE, TARGET, WORDS, D, F,
                                             by_path, ours)

TO_OURS = {'attention_layer': 'attention', 'feedforward_layer': 'feed_forward', 'layer_norm': 'norm',
           'feedforward_intermediate_dense': 'feed_forward_in', 'feedforward_output_dense': 'feed_forward_out',
           'attention_output': 'output_projection'}  # keras-hub's names


def hub_stacks(norm):
    """(encoder layers, decoder layers), built, and under the names of ours."""
    sizes = {'intermediate_dim': F, 'num_heads': HEADS, 'layer_norm_epsilon': EPSILON, 'normalize_first': norm == 'pre'}
    layers = keras_hub.layers
    encoder, decoder = ([layer(**sizes, name=f'{stack}_{i}') for i in range(LAYERS)] for stack, layer in (
        ('encoder', layers.TransformerEncoder), ('decoder', layers.TransformerDecoder)))
    for layer in encoder:
        layer.build((None, None, D))
    for layer in decoder:
        layer.build((None, None, D), (None, None, D))
    return encoder, decoder


def load_hub(layer, weights):
    """Theirs, by the names of ours: a kernel of attention has its heads on an axis of their own."""
    for weight in layer.weights:
        path = weight.path
        for theirs, name in TO_OURS.items():
            path = path.replace(theirs, name)
        if 'attention/' in path and path.endswith('bias'):
            np.testing.assert_array_equal(weight, np.zeros(weight.shape))
        else:
            weight.assign(weights[path].reshape(weight.shape))


@BOTH_NORMS
def test_as_keras_hub(norm, measured):
    model = ours(norm)
    weights = by_path(model, model.weights)
    encoder, decoder = hub_stacks(norm)
    embedding = keras.layers.ReversibleEmbedding(WORDS, D)
    embedding.build()
    embedding.set_weights([weights['shared_embedding/table']])
    for layer in (*encoder, *decoder):
        load_hub(layer, weights)

    def embed(ids):
        x = embedding(ids) * D**0.5  # [B, T, D]
        return x + keras_hub.layers.SinePositionEncoding()(x)

    x, real = embed(SOURCE), SOURCE != 0
    for layer in encoder:
        x = layer(x, padding_mask=real)
    memory = model.encoder_norm(x) if norm == 'pre' else x  # keras-hub has no stacks, and nothing at their ends
    np.testing.assert_allclose(model.encode(source_of(SOURCE)), memory, atol=1e-5)
    x = embed(TARGET)
    for layer in decoder:
        x = layer(x, memory, decoder_padding_mask=REAL, encoder_padding_mask=real)
    theirs = embedding(model.decoder_norm(x) if norm == 'pre' else x, reverse=True)
    logits = model({**source_of(SOURCE), 'target': TARGET}).numpy()
    difference = np.abs(logits - theirs)[REAL].max()
    measured('E5', f'keras-hub encoder and decoder, {norm}-norm, logits', 'cpu', difference / np.abs(logits).max())
    assert difference < 1e-5 and np.abs(logits).max() > 1
