"""Keras's own ResNet-20 for CIFAR-10, trained by `model.fit` for some minutes: what our recipe is compared with.

    python -m benchmarks.cifar_fit --minutes=30 --data_dir=FOLDER

The model and its training are those of examples/cifar10_resnet.py in keras-team/keras, version 1, n = 3: convolutions
with biases, shortcuts without norms, L2 of 1e-4, Adam, batch 32, the pixels' mean subtracted, images shifted by up to a
tenth of their side and mirrored. It publishes 92.16% after 200 epochs. Its rate drops after 80, 120, 160 and 180 of
them; here after the same shares of the minutes, compilation included, so that it is trained to its end. It trains on
all 50,000 images, of which our recipes hold a tenth back for validation.

FOLDER/cifar10 holds train/CLASS/*.png and test/CLASS/*.png, as for our recipes. Writes
benchmarks/results/cifar_fit.json, and its line in docs/results.md.
"""

import pathlib
import time

from absl import flags

import cli
from benchmarks import collect
from benchmarks.report import write
from errors import UserError

BATCH, RATE, DECAY, SHIFT, SEED = 32, 1e-3, 1e-4, 0.1, 0
# Share of the training after which the rate is RATE times the factor.
DROPS = {80 / 200: 1e-1, 120 / 200: 1e-2, 160 / 200: 1e-3, 180 / 200: 0.5e-3}
READ_AT_ONCE = 500      # images


def main():
    args = flags.FLAGS
    if args.minutes <= 0:
        raise UserError(f'`minutes` must be positive. Received: minutes={args.minutes:g}')
    folder = pathlib.Path(args.data_dir) / 'cifar10'
    if not args.data_dir or not all((folder / split).is_dir() for split in ('train', 'test')):
        raise UserError('`data_dir` must be a folder that holds cifar10/train and cifar10/test. '
                        f'Received: data_dir={args.data_dir!r}')
    with cli.quiet_tensorflow():
        import keras
    keras.utils.set_random_seed(SEED)
    train, test = (read(folder / split) for split in ('train', 'test'))
    mean = train[0].mean(0) / 255                                                      # [H, W, C]
    model = build(train[0].shape[1:], classes=int(train[1].max()) + 1)
    model.compile('adam', 'sparse_categorical_crossentropy', metrics=['accuracy'])
    budget = make_budget(60 * args.minutes)
    history = model.fit(batches(*train, mean, training=True), epochs=10 ** 6, callbacks=[budget], verbose=2,
                        shuffle=False).history      # the batches are shuffled
    loss, accuracy = model.evaluate(batches(*test, mean), verbose=0)
    print(f'{budget.steps:,} steps of {BATCH} in {budget.seconds / 60:.1f} minutes, '
          f'{budget.steps * BATCH / len(train[0]):.1f} epochs: test accuracy {accuracy:.4f}')
    write('cifar_fit', {'accuracy': accuracy, 'loss': loss, 'count': len(test[0]), 'seconds': budget.seconds,
                        'steps': budget.steps, 'batch_size': BATCH, 'train_images': len(train[0]),
                        'parameters': model.count_params(), 'seed': SEED, 'commit': collect.commit(),
                        'epochs': history, 'rates': budget.rates})
    collect.write_pages()


def rate(share):
    """The learning rate after this share of the training, 0 to 1."""
    return RATE * min((factor for start, factor in DROPS.items() if share > start), default=1.)


def make_budget(limit):
    """A callback of `fit` that sets the rate by the time that has passed, and ends the training after `limit` seconds.

    Attributes, afterwards: steps, seconds, and rates, {rate: the step after which it was first used}.
    """
    import keras

    class Budget(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self._start, self.steps, self.seconds, self.rates = time.perf_counter(), 0, 0., {}

        def on_train_batch_begin(self, batch, logs=None):
            wanted = rate(self.seconds / limit)
            if wanted not in self.rates:
                self.rates[wanted] = self.steps
                self.model.optimizer.learning_rate = wanted

        def on_train_batch_end(self, batch, logs=None):
            self.steps, self.seconds = self.steps + 1, time.perf_counter() - self._start
            self.model.stop_training = self.seconds >= limit
    return Budget()


def read(folder):
    """All images of a split, uint8 [N, H, W, C], and their classes, int32 [N]."""
    import keras
    import numpy as np
    files = keras.utils.image_dataset_from_directory(folder, batch_size=READ_AT_ONCE, image_size=(32, 32),
                                                     shuffle=False, verbose=False)
    images, classes = zip(*((x.numpy().astype(np.uint8), y.numpy()) for x, y in files))
    return np.concatenate(images), np.concatenate(classes)


def batches(images, classes, mean, training=False):
    """tf.data of (float32 [B, H, W, C], int32 [B]); when training, shuffled, shifted and mirrored."""
    import keras
    import tensorflow as tf
    dataset = tf.data.Dataset.from_tensor_slices((images, classes))
    moved = keras.Sequential([keras.layers.RandomTranslation(SHIFT, SHIFT, fill_mode='nearest', seed=SEED),
                              keras.layers.RandomFlip('horizontal', seed=SEED)])
    if training:
        dataset = dataset.shuffle(len(images), seed=SEED)

    def prepare(x, y):
        x = tf.cast(x, tf.float32) / 255. - mean
        return (moved(x, training=True) if training else x), y
    return dataset.batch(BATCH).map(prepare, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def build(shape, classes):
    """Image [H, W, C] -> probabilities [classes]: 274,442 numbers for CIFAR-10, moving statistics included."""
    import keras

    def convolve(x, filters, kernel=3, stride=1, norm=True, relu=True):
        x = keras.layers.Conv2D(filters, kernel, stride, padding='same', kernel_initializer='he_normal',
                                kernel_regularizer=keras.regularizers.L2(DECAY))(x)
        x = keras.layers.BatchNormalization()(x) if norm else x
        return keras.layers.ReLU()(x) if relu else x

    inputs = keras.Input(shape)
    x = convolve(inputs, 16)
    for filters in (16, 32, 64):
        for block in range(3):
            stride = 2 if filters > 16 and block == 0 else 1
            y = convolve(convolve(x, filters, 3, stride), filters, relu=False)
            if stride > 1:
                x = convolve(x, filters, 1, stride, norm=False, relu=False)
            x = keras.layers.ReLU()(keras.layers.Add()([x, y]))                         # [B, H / s, W / s, filters]
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(8)(x))                     # [B, 64]
    return keras.Model(inputs, keras.layers.Dense(classes, activation='softmax', kernel_initializer='he_normal')(x))


def define():
    flags.DEFINE_float('minutes', 30., 'Minutes of training, compilation included.')
    flags.DEFINE_string('data_dir', '', 'Folder that holds cifar10/train/CLASS/*.png and cifar10/test/CLASS/*.png.')


if __name__ == '__main__':
    cli.run(main, define)
