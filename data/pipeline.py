"""The step-indexed pipeline: batch n is computed from n alone.

Which examples are in batch n, and what random changes they get, follows from (seed, n, position in the global batch).
So a run can start at any step, on any number of replicas, with no iterator state; and a batch is one vectorised map
call, 5 to 20 times faster than a shuffle/map/batch chain over single examples (benchmarks/input_pipeline.py).

Each element of a dataset here is one replica's slice: replica r of R takes rows r*B/R .. (r+1)*B/R of the global
batch of B, and `strategy.distribute_datasets_from_function` deals the elements out in that order.

Nothing here knows a kind of data: rows (see rows.py) and a task's `batch` function come together.
"""

import tensorflow as tf

from data.rows import Paired
from draws import Draws
from errors import UserError

SHUFFLE, PARTNERS = 1, 2      # the third part of a permutation's seed
PREFETCHED = 2                # batches, beside those that the parallel calls hold


def shuffled_rows(stream, num_examples, seed, purpose=SHUFFLE):
    """int64 [b] positions in the endless stream of epochs -> int64 [b] example indices.

    Epoch e is the permutation of range(num_examples) that (seed, e, purpose) names; nothing is stored, each index is
    computed.
    """
    epoch, position = stream // num_examples, stream % num_examples
    # tf.random.experimental.index_shuffle pads a batched seed wrongly (TensorFlow 2.21), hence the raw op.
    seeds = tf.stack([tf.fill(tf.shape(epoch), tf.cast(seed, tf.int64)), epoch,
                      tf.fill(tf.shape(epoch), tf.cast(purpose, tf.int64))], axis=1)
    return tf.raw_ops.RandomIndexShuffle(index=position, seed=tf.cast(seeds, tf.int32),
                                         max_index=tf.cast(num_examples - 1, tf.int64), rounds=4)


def examples_of(rows, *, batch_size, seed, step):
    """int64 [B]: which rows are in the global batch of this step, in order."""
    positions = step * batch_size + tf.range(batch_size, dtype=tf.int64)
    return shuffled_rows(positions, rows.num_examples, seed)


def per_replica(batch_size, replicas):
    if batch_size % replicas:
        raise UserError(f'`batch_size` is the global batch and must be divisible by the number of replicas. '
                        f'Received: batch_size={batch_size}, replicas={replicas}')
    return batch_size // replicas


def training_slices(rows, batch, *, batch_size, seed, start_step=0):
    """Returns dataset_fn(input_context) for `strategy.distribute_datasets_from_function`: endless (x, y, weights).

    Args:
        rows: what `gather(indices)` gives rows of.
        batch: function (rows {name: tensor [b, ...]}, Draws, training) -> (x, y, weights), see tasks/task.py.
    """

    def dataset_fn(context=tf.distribute.InputContext()):
        place = _slice_rows(context, batch_size)

        def element(number):
            step, first_row, positions = place(number)
            return _training_batch(rows, batch, positions, seed, step, first_row)

        return _map(tf.data.Dataset.counter(start_step * _local_replicas(context)), element)
    return dataset_fn


def first_rows(rows, batch, *, batch_size, seed, count):
    """The first `count` rows of step 0's batch, as `training_slices` gives them: (x, y, weights)."""
    return _training_batch(rows, batch, tf.range(min(batch_size, count), dtype=tf.int64), seed)


def _training_batch(rows, batch, positions, seed, step=0, first_row=0):
    """(x, y, weights) of the rows at int64 [b] positions in the stream of epochs."""
    indices = shuffled_rows(positions, rows.num_examples, seed)
    if isinstance(rows, Paired):
        partners = shuffled_rows(positions, rows.num_examples, seed, PARTNERS)
        examples = rows.gather(indices, partners)
    else:
        partners, examples = None, rows.gather(indices)
    draws = Draws(seed, step, first_row, example=indices, epoch=positions // rows.num_examples, partner=partners)
    return batch(examples, draws, training=True)


def evaluation_slices(rows, batch, *, batch_size):
    """Returns dataset_fn(input_context): (x, y, weights, real), every row once, in order.

    The last batch is padded with weight 0. real, float32 [b], is 1 for a row of the split and 0 for padding: the count
    of an evaluation is its sum, whatever weights the task gives a row. What is random is that of seed 0 and step 0,
    keyed by the row, so that it does not depend on the batch size.
    """

    def dataset_fn(context=tf.distribute.InputContext()):
        place = _slice_rows(context, batch_size)

        def element(number):
            _, _, positions = place(number)
            examples = rows.gather(tf.minimum(positions, rows.num_examples - 1))
            x, y, weights = batch(examples, Draws(0, 0, positions[0]), training=False)
            real = tf.cast(positions < rows.num_examples, weights.dtype)                # [b]
            return x, y, weights * tf.reshape(real, [-1] + [1] * (weights.shape.rank - 1)), real

        return _map(tf.data.Dataset.range(evaluation_steps(rows, batch_size) * _local_replicas(context)), element)
    return dataset_fn


def evaluation_steps(rows, batch_size):
    return -(-rows.num_examples // batch_size)


def _local_replicas(context):
    return context.num_replicas_in_sync // context.num_input_pipelines


def _slice_rows(context, batch_size):
    """element number -> (step, first row of the slice in the global batch, int64 [b] positions in the stream)."""
    local = _local_replicas(context)
    b = per_replica(batch_size, context.num_replicas_in_sync)

    def rows(element):
        step, replica = element // local, context.input_pipeline_id * local + element % local
        first_row = replica * b
        return step, first_row, step * batch_size + first_row + tf.range(b, dtype=tf.int64)
    return rows


def _map(elements, batch):
    """The elements' batches, in order, made on all cores."""
    options = tf.data.Options()
    # One map needs no tuning: AUTOTUNE then means as many calls as cores, 16 at most. The tuner's thread, tf.data's
    # Model::OptimizeLoop, sleeps ever longer, and a run of ten minutes waited up to a minute for it at its end.
    options.autotune.enabled = False
    batches = elements.map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(PREFETCHED)
    return batches.with_options(options)
