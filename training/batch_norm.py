"""BatchNormalization over the global batch, however many replicas share it, and by one kernel where that is faster.

Measured on 2 CPU cores without XLA: the norm of [128, 32, 32, 16] and its gradient take 2.3 ms by TensorFlow's fused
kernel, and 6.8 ms by Keras's operations; a forward and a backward pass of ResNet-20 on 128 images of 32x32, 125 ms and
156 ms. An evaluation keeps Keras's operations: a third of a pass is too little to have other last bits than a served
model.
"""

import keras
import tensorflow as tf

from errors import UserError


def install(model, accumulate, replicas, one_kernel=False):
    """Makes every BatchNormalization of the model normalise by the rows of all replicas. Returns the model.

    Args:
        one_kernel: whether a single replica uses TensorFlow's fused kernel.

    Raises:
        UserError: a layer's result would depend on how the batch is spread over replicas or micro-batches.
    """
    for layer in model._flatten_layers():
        if hasattr(layer, 'all_reduce'):
            if accumulate > 1:
                raise UserError(f'`accumulate` cannot equal one large batch with BatchNormalization ({layer.name}). '
                                f'Received: accumulate={accumulate}')
            layer.all_reduce = all_reduce if replicas > 1 else None
            layer.fused = fused if one_kernel and replicas == 1 else None
        elif isinstance(layer, keras.layers.BatchNormalization):
            raise UserError('`model` must have models.batch_norm.BatchNormalization instead of Keras\'s, whose result '
                            f'or cost depends on the number of replicas. Received: {layer.name}')
    return model


@tf.custom_gradient
def all_reduce(tensor):
    """The sum over all replicas. A sum that every replica uses has the sum of the replicas' gradients as its own."""
    return _sum_over_replicas(tensor), _sum_over_replicas


def fused(x, gamma, beta, epsilon):
    """(outputs [B, H, W, C], mean [C], variance [C]) of x [B, H, W, C], by the kernel of the CPU, gradient included."""
    channels = x.shape[-1]
    scale = tf.ones([channels]) if gamma is None else gamma
    offset = tf.zeros([channels]) if beta is None else beta
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(x=x, scale=scale, offset=offset, mean=[], variance=[],
                                                              epsilon=epsilon, is_training=True)
    # The kernel gives a sample's estimate of the variance, n / (n - 1) times the mean square; of one number, 0.
    n = tf.cast(tf.size(x) // channels, x.dtype)
    return outputs, mean, variance * (tf.maximum(n - 1, 1) / n)


def _sum_over_replicas(tensor):
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tensor)
