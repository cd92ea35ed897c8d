"""Embeddings, and choices of tokens, whose gradient XLA computes without a scatter, for GPUs under determinism.

There XLA sorts what a scatter adds up, or adds one row after the other. For 32,768 vectors of 512 numbers, added to
8,000 rows, that took 12.2 ms on an H200, and a product with one-hot vectors 6.6 ms in float32 and 2.2 ms in
TensorFloat-32 (`python -m benchmarks.scatter`). The product needs memory for [vectors, rows] numbers, as many as a
translation has logits.
"""

import tensorflow as tf


def install(model):
    """Makes every layer of the model that has a `lookup` use this one. Returns the model."""
    for layer in model._flatten_layers():
        if hasattr(layer, 'lookup'):
            layer.lookup = lookup
    return model


def lookup(table, ids):
    """table [V, D], ids int [...] -> [..., D]; or, of each example its own, table [B, V, D], ids [B, N] -> [B, N, D].

    The gradient is a product; each sum in it has one order.
    """
    return _lookup(tf.convert_to_tensor(table), ids)


@tf.custom_gradient
def _lookup(table, ids):
    tables = len(table.shape) - 2      # 0 or 1: dimensions before a table's own

    def gradient(upstream):
        one_hot = tf.one_hot(ids if tables else tf.reshape(ids, [-1]), table.shape[-2], dtype=upstream.dtype)  # [N, V]
        upstream = upstream if tables else tf.reshape(upstream, [-1, table.shape[1]])                          # [N, D]
        return tf.matmul(one_hot, upstream, transpose_a=True), None
    return tf.gather(table, ids, axis=tables, batch_dims=tables), gradient
