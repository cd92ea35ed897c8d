"""The step-indexed pipeline against the usual shuffle/map/batch chain, on arrays of Fashion-MNIST's shapes.

    python -m benchmarks.input_pipeline
    python -m benchmarks.input_pipeline --jpeg --image_size=224      # files against their decoder, see input_files.py

Both give float32 [128, 28, 28, 1] in [0, 1] and int labels, shuffled, from the same arrays in memory. They run in turns
in one process; the ratio is of the medians over all turns.
"""

import time

from absl import flags

import cli

EXAMPLES, BATCH = 60_000, 128


def main():
    with cli.quiet_tensorflow():
        import tensorflow as tf
    if flags.FLAGS.jpeg or flags.FLAGS.png:
        from benchmarks.input_files import measure
        return measure('jpeg' if flags.FLAGS.jpeg else 'png', flags.FLAGS.image_size, flags.FLAGS.turns,
                       max(1, flags.FLAGS.batches // 5))
    import numpy as np
    from benchmarks.report import save
    import settings
    from data.dataset import Dataset, Image, Label
    from data.pipeline import training_slices
    from data.rows import Mapped
    from data.source import Tensors
    from tasks.classification import ImageClassification

    random = np.random.RandomState(0)
    images = random.randint(0, 256, (EXAMPLES, 28, 28, 1), dtype=np.uint8)
    labels = random.randint(0, 10, EXAMPLES)

    usual = (tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(10_000, seed=1).repeat()
             .map(lambda x, y: (tf.cast(x, tf.float32) / 255., y), num_parallel_calls=tf.data.AUTOTUNE)
             .batch(BATCH, drop_remainder=True).prefetch(tf.data.AUTOTUNE))
    source = Tensors(image=images, label=labels)
    fields = {'image': Image((28, 28, 1)), 'label': Label(tuple('0123456789'))}
    dataset = Dataset('random', source, source, source, fields)
    task = ImageClassification(settings.Classification(), dataset, settings.Images('random'))
    rows = Mapped(source, task.prepare, list(task.roles.values()))
    indexed = training_slices(rows, task.batch, batch_size=BATCH, seed=0)()
    iterators = {'indexed': iter(indexed), 'usual': iter(usual)}
    rates = {name: [] for name in iterators}
    for turn in range(flags.FLAGS.turns + 1):
        for name, iterator in iterators.items():
            batches = flags.FLAGS.batches * (5 if name == 'indexed' else 1)     # turns of like length
            started = time.perf_counter()
            for _ in range(batches):
                next(iterator)
            if turn:      # the first turn fills buffers
                rates[name].append(batches * BATCH / (time.perf_counter() - started))
    save('input_pipeline', {'examples_a_second': rates}, ratio=('indexed', 'usual'))


def define():
    flags.DEFINE_integer('turns', 10, 'Turns of each pipeline.')
    flags.DEFINE_integer('batches', 100, 'Batches per turn of the usual chain; of files, a fifth of it on both sides.')
    flags.DEFINE_bool('jpeg', False, 'A folder of JPEGs against tf.io.decode_jpeg alone.')
    flags.DEFINE_bool('png', False, 'A folder of PNGs against tf.io.decode_png alone.')
    flags.DEFINE_integer('image_size', 128, 'Side in pixels of what the model reads, of files.')


if __name__ == '__main__':
    cli.run(main, define)
