"""TensorBoard's files of a run: a folder per split, in which equal names are equal measures, so that curves overlay."""

import contextlib
import math
import os
import pathlib
import time

import numpy as np
import tensorflow as tf
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from errors import RunError

SHOWN = 16               # images or rows of a table in one summary, so that the files stay small
LETTERS = 500            # of a cell of a table
COLUMNS, GAP = 4, 2      # of a grid of images; pixels
SMALL, LARGE = 64, 128   # sides in pixels: a smaller image is enlarged, a larger one shrunk


class Board:
    """Writes the folders train/, validation/ and test/ of `folder`."""

    def __init__(self, folder):
        self._folder, self._writers = pathlib.Path(folder), {}

    def scalars(self, split, step, values):
        """Writes those of {name: value} that are numbers."""
        with self._writing(split, step):
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    tf.summary.scalar(name, value)

    def show(self, split, step, shown):
        """Writes {name: what a person looks at}: images, a table, or Markdown; see Task.show_inputs."""
        with self._writing(split, step):
            for name, what in shown.items():
                name = printable(name)
                if isinstance(what, (str, list)):
                    tf.summary.text(name, what if isinstance(what, str) else table(what))
                else:
                    tf.summary.image(name, grid(what))

    def summary(self, split, message):
        """Writes a Summary protocol buffer, which belongs to no step."""
        with self._writing(split, 0):
            tf.summary.experimental.write_raw_pb(message.SerializeToString())

    def keep(self, split, is_kept):
        """Removes the events for which a function (Event) is false, so that what is run again is there once.

        A TensorBoard that is running has read them. The one that is written in Python forgets them at the second START
        of a run; the faster one, per name, when a step comes that is not larger.
        """
        self._close(split)
        folder, now = self._folder / split, time.time_ns()
        old = sorted(folder.glob('*tfevents*'))
        # A start that was killed here leaves the same events in two files.
        kept = [record for record in dict.fromkeys(_records(old)) if is_kept(Event.FromString(record))]
        head = [Event(file_version='brain.Event:2'), Event(session_log=SessionLog(status=SessionLog.START))]
        for event in head:
            event.wall_time = now / 1e9
        # Files are read in the order of their names: this one after the old ones, and before the writer's, whose name
        # has the host's after the second.
        new, temporary = folder / f'events.out.tfevents.{now // 10 ** 9:010d}.+{now}', folder / '.kept.tmp'
        with _errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                with tf.io.TFRecordWriter(str(temporary)) as file:
                    for record in (*(event.SerializeToString() for event in head), *kept):
                        file.write(record)
                os.replace(temporary, new)
            finally:
                temporary.unlink(missing_ok=True)
            for file in old:
                file.unlink()

    def close(self):
        for split in list(self._writers):
            self._close(split)

    def _close(self, split):
        if writer := self._writers.pop(split, None):
            writer.close()

    @contextlib.contextmanager
    def _writing(self, split, step):
        with _errors(self._folder / split):
            if split not in self._writers:
                self._writers[split] = tf.summary.create_file_writer(str(self._folder / split))
            with self._writers[split].as_default(step):
                yield
            self._writers[split].flush()


@contextlib.contextmanager
def _errors(folder):
    try:
        yield
    except (tf.errors.OpError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else ' '.join(error.message.split())
        raise RunError(f'TensorBoard\'s files cannot be written to {folder}: {reason}') from None


def _records(files):
    """The serialized events of files that hold summaries. A power cut leaves half an event at a file's end."""
    for file in files:
        with contextlib.suppress(tf.errors.DataLossError):
            for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
                if Event.FromString(record).HasField('summary'):
                    yield record


def table(rows):
    """[[text]], its head first -> Markdown."""
    head, *rows = [[_literal(text) for text in row] for row in rows[:SHOWN + 1]]
    return '\n'.join(f'| {" | ".join(row)} |' for row in (head, ['---'] * len(head), *rows))


def printable(text):
    """A text without bytes that are not UTF-8, which names of files may have: U+FFFD in their place."""
    return text.encode('utf-8', 'surrogateescape').decode('utf-8', 'replace')


def _literal(text):
    """A text as Markdown that shows it as it is; line ends become spaces."""
    text = ' '.join(printable(text).split())
    text = text if len(text) <= LETTERS else text[:LETTERS - 1] + '…'
    return ''.join(c if c.isalnum() or c == ' ' or ord(c) > 127 else f'&#{ord(c)};' for c in text)


def grid(images):
    """Up to SHOWN of float [N, H, W, C] in 0 to 1 -> one picture of them all, row by row, uint8 [1, h, w, C]."""
    images = tf.cast(images[:SHOWN], tf.float32)
    side = max(images.shape[1:3])
    if side > LARGE:
        images = tf.image.resize(images, (LARGE, LARGE), preserve_aspect_ratio=True, antialias=True)
    pixels = np.uint8(np.round(np.clip(images, 0., 1.) * 255.))
    for axis in (1, 2):
        pixels = np.repeat(pixels, max(1, SMALL // side), axis)
    count, columns = len(pixels), min(COLUMNS, len(pixels))
    rows = math.ceil(count / columns)
    pixels = np.pad(pixels, [(0, rows * columns - count), (0, GAP), (0, GAP), (0, 0)], constant_values=255)
    _, height, width, channels = pixels.shape
    together = pixels.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return together.reshape(1, rows * height, columns * width, channels)
