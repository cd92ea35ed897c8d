"""Checkpoints: one file each, written aside and renamed, named after the hash of its bytes.

    checkpoints/step-00000120-1f8a...e2.safetensors     the newest KEEP of them
    checkpoints/best-00000100-77b0...41.safetensors     the best by the task's metric

A file that was cut, changed or half written does not match its own name: it is reported and skipped, and the newest
sound one is restored. safetensors files hold plain named arrays and can be read without this project.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import re

import safetensors.numpy

from errors import RunError

KEEP = 3
PATTERN = re.compile(r'(step|best)-(\d{8,})-([0-9a-f]{32})\.safetensors')


class Checkpoints:
    """Writes in a thread of its own, so that training waits only for the copy of the variables to host memory.

    Args:
        folder: where the files are; made when the first is written.
        report: called with one line for each broken file.
    """

    def __init__(self, folder, report=print):
        self.folder, self._report = pathlib.Path(folder), report
        self._writer = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix='checkpoint')
        self._pending = None

    def save(self, step, arrays, metadata, best=False):
        """Starts writing; waits first for the one before, and raises what that met.

        Args:
            arrays: {name: numpy array}, not to be changed afterwards.
            metadata: JSON-able dict, kept in the file.
            best: also replace the best checkpoint.
        """
        self.wait()
        self._pending = self._writer.submit(self._write, step, arrays, metadata, best)

    def wait(self):
        """Returns when all is on disk.

        Raises:
            RunError: it could not be written (a full disk, say). Older files are as they were.
        """
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    def newest(self):
        """(arrays, metadata) of the newest sound checkpoint, or None. Broken ones are reported."""
        return decode(self.newest_bytes())

    def newest_bytes(self):
        """The newest sound file, as it is; b'' if there is none."""
        return self._first_sound(reversed(self._files('step')))

    def best(self):
        return decode(self._first_sound(reversed(self._files('best'))))

    def at(self, step):
        """(arrays, metadata) of the checkpoint of this step, or None."""
        return decode(self._first_sound(f for f in self._files('step') if step_of(f) == step))

    def steps(self):
        return sorted({step_of(f) for f in self._files('step')})

    def _files(self, kind):
        """Files of one kind, oldest step first."""
        found = [f for f in self.folder.glob('*.safetensors') if PATTERN.fullmatch(f.name)]
        return sorted((f for f in found if f.name.startswith(kind)), key=step_of)

    def _write(self, step, arrays, metadata, best):
        data = safetensors.numpy.save(arrays, metadata={'run': json.dumps({**metadata, 'step': step})})
        digest = _digest(data)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # The best first: a run killed between the two resumes before this step, and writes both again.
            for kind in ('best', 'step') if best else ('step',):
                write_atomically(self.folder / f'{kind}-{step:08d}-{digest}.safetensors', data)
        except OSError as error:
            left = [s for s in self.steps() if s != step]
            there = f'that of step {left[-1]} is there' if left else 'there is none yet'
            raise RunError(f'the checkpoint of step {step} could not be written to {self.folder}: '
                           f'{error.strerror or error}; {there}') from None
        self._remove(self._files('step')[:-KEEP])
        self._remove(self.folder.glob('.*.tmp'))        # of a process that was killed while it wrote
        if best:
            self._remove(f for f in self._files('best') if step_of(f) != step or digest not in f.name)

    def _remove(self, files):
        for file in files:
            file.unlink(missing_ok=True)

    def _first_sound(self, files):
        return next(filter(None, map(self._read, files)), b'')

    def _read(self, file):
        try:
            data = file.read_bytes()
        except OSError as error:
            self._report(f'checkpoint {file.name} cannot be read ({error.strerror}): skipped')
            return b''
        if _digest(data) == PATTERN.fullmatch(file.name)[3]:
            return data
        self._report(f'checkpoint {file.name} is broken (its bytes do not match its name): skipped')
        return b''


def decode(data):
    """Bytes of a checkpoint -> (arrays, metadata); b'' -> None."""
    if not data:
        return None
    header = json.loads(data[8:8 + int.from_bytes(data[:8], 'little')])
    return safetensors.numpy.load(data), json.loads(header['__metadata__']['run'])


def _digest(data):
    return hashlib.sha256(data).hexdigest()[:32]


def step_of(file):
    return int(PATTERN.fullmatch(file.name)[2])


def write_atomically(path, data):
    """Writes bytes so that `path` holds either all of them or what it held before, even after a power cut."""
    path = pathlib.Path(path)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        with open(temporary, 'wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
