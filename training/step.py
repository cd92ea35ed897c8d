"""The step: one path for every strategy.

    gradients of the weighted sum  ->  one all-reduce, of gradients and weight together  ->  divide by the global weight
    ->  clip by the global norm  ->  if anything is not finite, skip and count  ->  apply

Because nothing is averaged before the all-reduce, N replicas compute what one device computes, however the real
(unpadded) examples are spread over them.
"""

import tensorflow as tf

from training import randomness

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
        jit: compile forward + backward, and the update, with XLA. The all-reduce stays outside: XLA cannot hold it
            under MirroredStrategy.
        loss_scale: a LossScale for float16, else None.
    """

    def __init__(self, model, optimizer, task, *, batch_size, replicas, seed=0, clip_norm=0., accumulate=1, jit=False,
                 loss_scale=None):
        self.model, self.optimizer, self.task = model, optimizer, task
        self._batch_size, self._rows = batch_size, batch_size // replicas
        self._seed, self._clip_norm, self._accumulate, self._loss_scale = seed, clip_norm, accumulate, loss_scale
        compiled = tf.function(jit_compile=True) if jit else lambda function: function
        self._micro_batch, self._update = compiled(self.forward_backward), compiled(self._apply)

    @property
    def totals_names(self):
        return ('loss', *self.task.training_metrics, 'grad_norm', 'skipped')

    def __call__(self, batch, step):
        """Returns the step's totals over all replicas, {name: (sum, count)}, equal on every replica."""
        context = tf.distribute.get_replica_context()
        first_row = tf.cast(context.replica_id_in_sync_group, tf.int64) * self._rows
        # Moving statistics change in the forward pass; a step that is skipped must leave no trace in them either.
        before = [tf.identity(v.value) for v in self.model.non_trainable_weights]
        gradients, totals = self._accumulated(batch, step, first_row)
        gradients, totals = context.all_reduce(tf.distribute.ReduceOp.SUM, (gradients, totals))
        norm, finite = self._update(gradients, *totals['loss'], before)
        return _with_health(totals, norm, finite)

    def _accumulated(self, batch, step, first_row):
        """Sums gradients and totals over the micro-batches of this replica's slice."""
        k = self._accumulate
        if k == 1:
            return self._micro_batch(batch, step, first_row)
        split = tf.nest.map_structure(lambda t: tf.reshape(t, [k, t.shape[0] // k, *t.shape[1:]]), batch)
        summed = self._micro_batch(tf.nest.map_structure(lambda t: t[0], split), step, first_row)
        for i in tf.range(1, k):
            rows = first_row + tf.cast(i, tf.int64) * (self._rows // k)
            part = self._micro_batch(tf.nest.map_structure(lambda t: t[i], split), step, rows)
            summed = tf.nest.map_structure(tf.add, summed, part)
        return summed

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

    def _apply(self, gradients, loss, weight, before):
        """Updates this replica's copies from global sums. Returns (norm of the mean gradient, whether all is finite).

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

        tf.cond(finite, apply, skip)
        if self._loss_scale:
            self._loss_scale.update(finite)
        return norm, finite


def _with_health(totals, norm, finite):
    """Adds the mean gradient norm and the skipped steps; a skipped step's sums do not poison the interval's."""
    one = tf.ones([])
    totals = {**totals, 'grad_norm': (norm, one)}
    totals = tf.nest.map_structure(lambda t: tf.where(finite, t, 0.), totals)
    return {**totals, 'skipped': (tf.where(finite, 0., 1.), one)}
