"""The step-indexed pipeline: batch n is computed from n alone.

Which examples are in batch n, and how they are augmented, follows from (seed, n, position in the global batch). So a
run can start at any step, on any number of replicas, with no iterator state; and a batch is one vectorised map call,
5 to 20 times faster than a shuffle/map/batch chain over single examples (benchmarks/input_pipeline.py).

Each element of a dataset here is one replica's slice: replica r of R takes rows r*B/R .. (r+1)*B/R of the global
batch of B, and `strategy.distribute_datasets_from_function` deals the elements out in that order.
"""

import tensorflow as tf

from data.augment import AUGMENTATIONS, augment
from data.prepared import Prepared
from errors import UserError, lookup

# A run's permutation and its augmentation must not draw the same numbers from the same seed.
SHUFFLE, AUGMENT = 1, 2


def shuffled_rows(stream, num_examples, seed):
    """int64 [b] positions in the endless stream of epochs -> int64 [b] example indices.

    Epoch e is the permutation of range(num_examples) that (seed, e) names; nothing is stored, each index is computed.
    """
    epoch, position = stream // num_examples, stream % num_examples
    # tf.random.experimental.index_shuffle pads a batched seed wrongly (TensorFlow 2.21), hence the raw op.
    seeds = tf.stack([tf.fill(tf.shape(epoch), tf.cast(seed, tf.int64)), epoch,
                      tf.fill(tf.shape(epoch), tf.cast(SHUFFLE, tf.int64))], axis=1)
    return tf.raw_ops.RandomIndexShuffle(index=position, seed=tf.cast(seeds, tf.int32),
                                         max_index=tf.cast(num_examples - 1, tf.int64), rounds=4)


def examples_of(source, *, batch_size, seed, step):
    """int64 [B]: which examples of the source are in the global batch of this step, in order."""
    positions = step * batch_size + tf.range(batch_size, dtype=tf.int64)
    return shuffled_rows(positions, source.num_examples, seed)


def per_replica(batch_size, replicas):
    if batch_size % replicas:
        raise UserError(f'`batch_size` is the global batch and must be divisible by the number of replicas. '
                        f'Received: batch_size={batch_size}, replicas={replicas}')
    return batch_size // replicas


def training_slices(source, features, *, batch_size, seed, transform='none', start_step=0):
    """Returns dataset_fn(input_context) for `strategy.distribute_datasets_from_function`: endless (x, y, weights)."""
    transform = lookup(AUGMENTATIONS, transform, 'augment')
    if transform and features.kind != 'image':
        raise UserError(f'`augment` is for images; this dataset gives {features.kind}s')

    def dataset_fn(context=tf.distribute.InputContext()):
        rows = _slice_rows(context, batch_size)

        def batch(element):
            step, first_row, positions = rows(element)
            x, y, weights = fetch(source, features, shuffled_rows(positions, source.num_examples, seed))
            if transform:
                x = augment(x, transform, seed * 4 + AUGMENT, step, batch_size, first_row)
            return x, y, weights

        return _map(tf.data.Dataset.counter(start_step * _local_replicas(context)), batch)
    return dataset_fn


def evaluation_slices(source, features, *, batch_size):
    """Returns dataset_fn(input_context): every example once, in order; the last batch is padded with weight 0."""

    def dataset_fn(context=tf.distribute.InputContext()):
        rows = _slice_rows(context, batch_size)

        def batch(element):
            _, _, positions = rows(element)
            x, y, weights = fetch(source, features, tf.minimum(positions, source.num_examples - 1))
            real = tf.cast(positions < source.num_examples, weights.dtype)                # [b]
            return x, y, weights * tf.reshape(real, [-1] + [1] * (weights.shape.rank - 1))

        return _map(tf.data.Dataset.range(evaluation_steps(source, batch_size) * _local_replicas(context)), batch)
    return dataset_fn


def fetch(source, features, indices):
    """int64 [b] -> (x, y, weights), computed now or taken from a prepared source."""
    return source.batch(indices) if isinstance(source, Prepared) else features.batch(source.gather(indices))


def evaluation_steps(source, batch_size):
    return -(-source.num_examples // batch_size)


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
    return elements.map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)
