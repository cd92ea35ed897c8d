"""A look inside a model while it is called, with no change to the model."""

import contextlib

from models.attention import MultiHeadAttention


@contextlib.contextmanager
def attention_weights(model):
    """While it is open, each call of the model records the weights of every MultiHeadAttention in it.

    Yields:
        {path of the layer: tensor [B, h, T, S]}, filled by the call; rows sum to 1.
    """
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, MultiHeadAttention)]
    weights = {}
    for layer in layers:
        layer.tap = lambda value, layer=layer: weights.update({layer.path: value})      # built by its first call
    try:
        yield weights
    finally:
        for layer in layers:
            layer.tap = None
