"""The step: one path for every strategy.

    gradients of the weighted sum  ->  one all-reduce, of gradients and weight together  ->  divide by the global weight
    ->  clip by the global norm  ->  if anything is not finite, skip and count  ->  apply

Because nothing is averaged before the all-reduce, N replicas compute what one device computes, however the real
(unpadded) examples are spread over them.
"""

import tensorflow as tf

from training import micro_batches, randomness

# Loss scaling of float16 (arXiv:1710.03740, section 3.2): halve on overflow, double after this many good steps.
INITIAL_LOSS_SCALE, GROW_AFTER = 2. ** 15, 2000


class LossScale:
    """The factor that lifts float16 gradients out of underflow. Its two numbers are part of the checkpoint."""

    def __init__(self):
        self.scale = self._variable(INITIAL_LOSS_SCALE, 'scale')
        self.good_steps = self._variable(0., 'good_steps')
        self.variables = [self.scale, self.good_steps]

    @staticmethod
    def _variable(value, name):
        return tf.Variable(value, trainable=False, name=name, aggregation=tf.VariableAggregation.NONE)

    def update(self, finite):
        grown = self.good_steps + 1. >= GROW_AFTER
        kept_or_grown = tf.where(grown, self.scale * 2., self.scale)
        self.scale.assign(tf.where(finite, kept_or_grown, tf.maximum(self.scale / 2., 1.)))
        self.good_steps.assign(tf.where(finite & ~grown, self.good_steps + 1., 0.))


class TrainStep:
    """Called in a replica context with a replica's slice of the batch and the step number.

    Args:
        model: a Keras model, prepared by `randomness.install`.
        optimizer: from `make_optimizer`.
        task: gives `training_totals` (see tasks/task.py).
        batch_size: global; with `replicas` it gives the position of a slice.
        accumulate, sum_dtype: see micro_batches.py.
        jit: compile forward + backward, and the update, with XLA. The all-reduce stays outside: XLA cannot hold it
            under MirroredStrategy.
        loss_scale: a LossScale for float16, else None.
    """

    def __init__(self, model, optimizer, task, *, batch_size, replicas, seed=0, clip_norm=0., accumulate=1, jit=False,
                 loss_scale=None, sum_dtype=tf.float32):
        self.model, self.optimizer, self.task = model, optimizer, task
        self._batch_size, self._rows = batch_size, batch_size // replicas
        self._seed, self._clip_norm, self._loss_scale = seed, clip_norm, loss_scale
        self._pieces, self._sum_dtype = micro_batches.pieces_of_a_replica(accumulate, replicas), sum_dtype
        compiled = tf.function(jit_compile=True) if jit else lambda function: function
        self._micro_batch, self._update = compiled(self.forward_backward), compiled(self._apply)

    @property
    def totals_names(self):
        return ('loss', *self.task.training_metrics, 'grad_norm', 'skipped')

    def __call__(self, batch, step, allowed=True, flags=()):
        """Takes the step.

        Args:
            batch: this replica's slice of it. step: int64 scalar.
            allowed: bool scalar; the update of a step that is not allowed is skipped like one that is not finite.
            flags: float32 tensors to sum over all replicas on the way; the one all-reduce carries them too.

        Returns:
            (totals over all replicas, {name: (sum, count)}; summed flags), equal on every replica.
        """
        # Moving statistics change in the forward pass; a step that is skipped must leave no trace in them either.
        before = [tf.identity(v.value) for v in self.model.non_trainable_weights]
        gradients, totals, flags = self.summed(batch, step, flags)
        norm, taken = self._update(gradients, *totals['loss'], before, allowed)
        return _with_health(totals, norm, taken), flags

    def summed(self, batch, step, flags=()):
        """Gradients, totals and flags, summed over all micro-batches and all replicas, in one all-reduce."""
        context = tf.distribute.get_replica_context()
        first_row = tf.cast(context.replica_id_in_sync_group, tf.int64) * self._rows
        gradients, totals = micro_batches.summed(
            lambda piece, i: self._micro_batch(piece, step, first_row + i * (self._rows // self._pieces)),
            batch, self._pieces, self._sum_dtype)
        # A tensor that replicas share would not count as one of each; and one type means one all-reduce.
        flags = tf.nest.map_structure(lambda t: tf.identity(tf.cast(t, self._sum_dtype)), flags)
        summed = context.all_reduce(tf.distribute.ReduceOp.SUM, (gradients, totals, flags))
        return tf.nest.map_structure(lambda t: tf.cast(t, tf.float32), summed)

    def gradient_norms(self, batch, step):
        """[Norm of the summed gradient of each trainable variable] and totals, for a report. Nothing is updated."""
        gradients, totals, _ = self.summed(batch, step)
        return [tf.norm(gradient) for gradient in gradients], totals

    def forward_backward(self, batch, step, first_row):
        """A (micro-)batch whose first row is `first_row` of the global one -> (summed gradients, totals)."""
        x, y, weights = batch
        with randomness.at(self._seed, step, first_row), tf.GradientTape() as tape:
            totals = self.task.training_totals(y, self.model(x, training=True), weights)
            loss, weight = totals['loss']
            # Regularisation belongs to the mean loss, so it is counted once for each unit of weight.
            objective = loss + weight * tf.add_n([tf.zeros([])] + self.model.losses)
            if self._loss_scale:
                # A sum over the batch would overflow float16 where its mean would not.
                objective *= self._loss_scale.scale / self._batch_size
        gradients = tape.gradient(objective, [v.value for v in self.model.trainable_variables],
                                  unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return [tf.convert_to_tensor(g) for g in gradients], totals     # dense: an embedding's rows too

    def _apply(self, gradients, loss, weight, before, allowed):
        """Updates this replica's copies from global sums. Returns (norm of the mean gradient, whether it did).

        before: what the non-trainable weights were before the forward pass.
        """
        scale = 1. / tf.maximum(weight, 1e-20)
        if self._loss_scale:
            scale *= self._batch_size / self._loss_scale.scale
        norm = tf.linalg.global_norm(gradients) * scale
        finite = tf.math.is_finite(norm) & tf.math.is_finite(loss)     # a sum of squares hides no inf and no nan
        if self._clip_norm:
            scale *= tf.minimum(1., self._clip_norm / tf.maximum(norm, 1e-20))

        def apply():
            self.optimizer.apply([g * scale for g in gradients], self.model.trainable_variables)
            return True

        def skip():
            for variable, value in zip(self.model.non_trainable_weights, before):
                variable.assign(value)
            return True

        taken = finite & allowed
        tf.cond(taken, apply, skip)
        if self._loss_scale:
            self._loss_scale.update(finite)
        return norm, taken


def _with_health(totals, norm, taken):
    """Adds the mean gradient norm and the skipped steps; a skipped step's sums do not poison the interval's."""
    one = tf.ones([])
    totals = {**totals, 'grad_norm': (norm, one)}
    totals = tf.nest.map_structure(lambda t: tf.where(taken, t, 0.), totals)
    return {**totals, 'skipped': (tf.where(taken, 0., 1.), one)}
