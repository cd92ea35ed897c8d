"""BatchNormalization over the global batch, however many replicas share it."""

import keras
import tensorflow as tf

from errors import UserError


def install(model, accumulate, replicas):
    """Makes every BatchNormalization of the model normalise by the rows of all replicas. Returns the model.

    Raises:
        UserError: a layer's result would depend on how the batch is spread over replicas or micro-batches.
    """
    for layer in model._flatten_layers():
        if hasattr(layer, 'all_reduce'):
            if accumulate > 1:
                raise UserError(f'`accumulate` cannot equal one large batch with BatchNormalization ({layer.name}). '
                                f'Received: accumulate={accumulate}')
            layer.all_reduce = all_reduce if replicas > 1 else None
        elif isinstance(layer, keras.layers.BatchNormalization):
            raise UserError('`model` must have models.batch_norm.BatchNormalization instead of Keras\'s, whose result '
                            f'or cost depends on the number of replicas. Received: {layer.name}')
    return model


@tf.custom_gradient
def all_reduce(tensor):
    """The sum over all replicas. A sum that every replica uses has the sum of the replicas' gradients as its own."""
    return _sum_over_replicas(tensor), _sum_over_replicas


def _sum_over_replicas(tensor):
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tensor)
