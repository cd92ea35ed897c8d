"""A folder of image files through our pipeline, against TensorFlow's decoder alone; see input_pipeline.py.

The folder is made for it: 512 colour pictures of 375x500 pixels, noise of low frequencies as photographs have. As JPEGs
they have about 25 kB each, with every second value of colour (4:2:0). The decoder gets the same bytes from memory, one
file per element of tf.data, on all cores; ours also reads, resizes and scales. They run in turns, in one process.
The ratio is of images per second of CPU time, which is that of images per second on cores that nobody else uses.
"""

import pathlib
import resource
import statistics
import tempfile
import time

from benchmarks.report import save

FILES, HEIGHT, WIDTH, QUALITY, BATCH, WARM_UP = 512, 375, 500, 52, 64, 4
DECODERS = {'jpeg': 'decode_jpeg', 'png': 'decode_png'}


def measure(kind, image_size, turns, batches):
    """Prints rates, the memory before and after, and last the ratio; writes input_pipeline_KIND_SIZE.json."""
    import tensorflow as tf
    from data import open_dataset
    from data.pipeline import training_slices
    from data.rows import Mapped
    import settings
    from tasks.classification import ImageClassification

    with tempfile.TemporaryDirectory() as folder:
        _write(pathlib.Path(folder), kind)
        dataset = open_dataset(f'files/{folder}')
        data = settings.Images(dataset.name, image_size=image_size)
        task = ImageClassification(settings.Classification(), dataset, data)
        rows = Mapped(dataset.train, task.prepare, list(task.roles.values()))      # never kept: FILES are few
        files = tf.constant([path.read_bytes() for path in sorted(pathlib.Path(folder).glob('train/*/*'))])
        decode = getattr(tf.io, DECODERS[kind])
        # Its size alone is handed on, so that nothing is spent on copies.
        alone = tf.data.Dataset.range(2 ** 62).map(lambda i: tf.size(decode(files[i % FILES])), tf.data.AUTOTUNE)
        sides = {'pipeline': training_slices(rows, task.batch, batch_size=BATCH, seed=0)(),
                 'decoder': alone.batch(BATCH).prefetch(tf.data.AUTOTUNE)}
        per_cpu, rates, memory = ({name: [] for name in sides} for _ in range(3))
        for turn in range(turns + 1):
            for name, batches_of in sides.items():
                seconds, used = _take(batches_of, batches)
                if turn:      # in the first turn memory is reserved
                    per_cpu[name].append(batches * BATCH / used)
                    rates[name].append(batches * BATCH / seconds)
                    memory[name].append(_megabytes())
    for name in sides:
        print(f'{name:<12} {1e3 / statistics.median(per_cpu[name]):12,.3f} CPU ms per image, '
              f'{statistics.median(rates[name]):,.0f} images a second')
    print(f'{tf.strings.length(files).numpy().mean() / 1e3:.1f} kB per file; memory '
          f'{memory["pipeline"][0]:.0f} MB after the first turn, {memory["decoder"][-1]:.0f} MB after the last')
    save(f'input_pipeline_{kind}_{image_size}', {'images_a_cpu_second': per_cpu, 'images_a_second': rates,
                                                 'megabytes_of_memory': memory}, ratio=('pipeline', 'decoder'))


def _take(batches_of, count):
    """(seconds, CPU seconds) of `count` batches, of an iterator of their own: none works in another's turn."""
    iterator = iter(batches_of)
    for _ in range(WARM_UP):
        next(iterator)
    started, used = time.perf_counter(), _cpu_seconds()
    for _ in range(count):
        next(iterator)
    return time.perf_counter() - started, _cpu_seconds() - used


def _write(folder, kind):
    """FILES pictures of two classes, the splits' least: one of each class for validation and for test."""
    import numpy as np
    import tensorflow as tf
    random = np.random.RandomState(0)
    for i in range(FILES + 4):
        split = 'train' if i < FILES else ('validation', 'test')[(i - FILES) // 2]
        path = folder / split / f'class {i % 2}' / f'{i:04}.{kind}'
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = _picture(random)
        path.write_bytes((tf.io.encode_jpeg(picture, quality=QUALITY) if kind == 'jpeg'
                          else tf.io.encode_png(picture)).numpy())


def _picture(random):
    """uint8 [HEIGHT, WIDTH, 3]: colour noise at three scales, and a little grain."""
    import numpy as np
    import tensorflow as tf
    noise = sum(share * tf.image.resize(random.uniform(-1, 1, (*size, 3)), (HEIGHT, WIDTH), 'bicubic')
                for share, size in ((0.8, (6, 8)), (0.5, (24, 32)), (0.3, (94, 125))))
    grain = random.normal(0, 1.5, (HEIGHT, WIDTH, 1))
    return np.clip(128 + 128 * noise.numpy() + grain, 0, 255).astype(np.uint8)


def _cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _megabytes():
    """The memory that this process holds now."""
    pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
    return pages * resource.getpagesize() / 1e6
