"""BatchNormalization whose statistics can be those of a batch that is spread over several replicas."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package='congruent')
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` (arXiv:1502.03167), until a trainer sets `all_reduce`.

    The arguments, and the names and the order of the variables, are Keras's: weights carry over in both directions.

    Keras normalises by each replica's own rows, or, with `synchronized=True`, by all rows at the price of three
    all-reduces forward and two backward. A trainer of several replicas sets `layer.all_reduce` to a function
    (tensor) -> the sum of the replicas' tensors, whose gradient is the sum of the replicas' gradients. Each call in
    training then takes one all-reduce forward and one backward, of 2 C + 1 numbers for C channels; inference takes
    none. The moving statistics are equal on all replicas.

    Where a backend has one kernel for the whole norm, a trainer of one replica sets `layer.fused` to a function
    (x [B, H, W, C] float32, gamma [C] or None, beta [C] or None, epsilon) -> (outputs, mean [C], variance [C]), the
    variance being the mean square that Keras takes, not a sample's estimate. It serves training on such inputs; all
    others are computed as before. `all_reduce` and `fused` belong to the run and not to the model: they are not saved.

    All rows count alike. A batch in training has no padding rows; a mask is refused, because the statistics would
    include what it masks. Statistics are computed in float32 at least, whatever the precision of the model.

    Raises:
        ValueError: `synchronized` or `renorm` is set.
    """

    all_reduce = fused = None

    def __init__(self, axis=-1, momentum=0.99, epsilon=1e-3, **options):
        if options.get('synchronized'):
            raise ValueError('`synchronized` must be False: a trainer sets `all_reduce` where there are several '
                             'replicas. Received: synchronized=True')
        if options.get('renorm'):       # of Keras 3.15
            raise ValueError('`renorm` must be False: it is not implemented over several replicas. '
                             'Received: renorm=True')
        super().__init__(axis=axis, momentum=momentum, epsilon=epsilon, **options)

    def call(self, inputs, training=False, mask=None):
        if mask is not None:
            raise ValueError('`mask` must be None: masked positions would count in the statistics. Received: a mask of '
                             f'shape {tuple(mask.shape)}')
        learns = training and self.trainable
        if learns and self.all_reduce is not None:
            return self._over_all_replicas(inputs)
        if learns and self.fused is not None and self._fits_fused(inputs):
            outputs, mean, variance = self.fused(inputs, self.gamma, self.beta, self.epsilon)
            self._move(mean, variance)
            return outputs
        return super().call(inputs, training=training)

    def _fits_fused(self, x):
        types = {keras.backend.standardize_dtype(x.dtype), self.compute_dtype, self.variable_dtype}
        return types == {'float32'} and len(x.shape) == 4 and self.axis % 4 == 3

    def _over_all_replicas(self, inputs):
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, 'float32'))
        mean, variance = self._moments_of_all_replicas(x)
        self._move(mean, variance)
        outputs = ops.batch_normalization(x, mean, variance, self.axis, offset=self._cast(self.beta, x.dtype),
                                          scale=self._cast(self.gamma, x.dtype), epsilon=self.epsilon)
        return ops.cast(outputs, self.compute_dtype)

    def _move(self, mean, variance):
        for moving, current in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + current * (1. - self.momentum))

    def _moments_of_all_replicas(self, x):
        """Mean [C] and variance [C] of all replicas' rows, from one all-reduce.

        E[x^2] - E[x]^2 loses a small variance beside a large mean. So a replica's own variance is taken around its own
        mean, and the means enter as distances from the moving mean, which is the same number on every replica.
        """
        channels = self.axis % len(x.shape)
        mean, variance = ops.moments(x, [axis for axis in range(len(x.shape)) if axis != channels])
        shift = self._cast(self.moving_mean, x.dtype)
        distance = mean - shift
        count = ops.reshape(ops.cast(ops.size(x) // x.shape[channels], x.dtype), [1])
        sums = self.all_reduce(ops.concatenate([count * distance, count * (variance + distance * distance), count]))
        distance, square = ops.split(sums[:-1] / sums[-1:], 2)
        return shift + distance, ops.maximum(square - distance * distance, 0.)

    @staticmethod
    def _cast(variable, dtype):
        return None if variable is None else ops.cast(variable, dtype)
