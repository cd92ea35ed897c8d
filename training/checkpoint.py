"""Checkpoints: one file each, written aside and renamed, named after the hash of its bytes.

    checkpoints/step-00000120-1f8a...e2.safetensors     the newest KEEP of them
    checkpoints/best-00000100-77b0...41.safetensors     the best by the task's metric

A file that was cut, changed or half written does not match its own name: it is reported and skipped, and the newest
sound one is restored. safetensors files hold plain named arrays and can be read without this project.
"""

import concurrent.futures
import hashlib
import json
import pathlib
import re

import safetensors.numpy

from errors import RunError
from training.files import write_atomically

KEEP = 3
PATTERN = re.compile(r'(step|best)-(\d{8,})-([0-9a-f]{32})\.safetensors')


class Checkpoints:
    """Writes in a thread of its own, so that training waits only for the copy of the variables to host memory.

    Args:
        folder: where the files are; made when the first is written.
        report: called with one line for each broken file.
        recipe: JSON of the run's recipe. It is kept in each file, and a file of another recipe is refused. Empty: any.
    """

    def __init__(self, folder, report=print, recipe=''):
        self.folder, self._report = pathlib.Path(folder), report
        self._recipe = json.loads(recipe) if recipe else {}
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
        """(arrays, metadata) of the newest sound checkpoint, or None. Broken ones are reported.

        Raises:
            RunError: it is of another recipe. So do the methods below.
        """
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
        recipe = {'recipe': self._recipe} if self._recipe else {}
        data = safetensors.numpy.save(arrays, metadata={'run': json.dumps({**metadata, **recipe, 'step': step})})
        digest = _digest(data)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # The best first: a run killed between the two resumes before this step, and writes both again.
            for kind in ('best', 'step') if best else ('step',):
                write_atomically(self.folder / _name(kind, step, digest), data)
        except OSError as error:
            left = [s for s in self.steps() if s != step]
            there = f'that of step {left[-1]} is there' if left else 'there is none yet'
            raise RunError(f'the checkpoint of step {step} could not be written to {self.folder}: '
                           f'{error.strerror or error}; {there}') from None
        # A file of the same step was written before its evaluation.
        self._remove(f for f in self._files('step') if step_of(f) == step and digest not in f.name)
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
        if _digest(data) != PATTERN.fullmatch(file.name)[3]:
            self._report(f'checkpoint {file.name} is broken (its bytes do not match its name): skipped')
            return b''
        if reason := _unsound(data, step_of(file)):
            self._report(f'checkpoint {file.name} is broken ({reason}): skipped')
            return b''
        different = _differences(decode(data)[1].get('recipe', {}), self._recipe)     # 0.4.0 wrote no recipe
        if different:
            raise RunError(f'checkpoint {file} is of another recipe ({"; ".join(different)}): remove it, or put it '
                           'back where it came from')
        return data


def decode(data):
    """Bytes of a checkpoint -> (arrays, metadata); b'' -> None."""
    if not data:
        return None
    header = json.loads(data[8:8 + int.from_bytes(data[:8], 'little')])
    return safetensors.numpy.load(data), json.loads(header['__metadata__']['run'])


def _unsound(data, step):
    """Why bytes whose hash is right are no checkpoint of this step, or ''."""
    try:
        arrays, metadata = decode(data)
        found = metadata['step']
    except Exception:      # whatever the parsers of two formats raise on bytes that this class did not write
        return 'it is not a safetensors file with the metadata of a run'
    if not arrays:
        return 'it holds no arrays'
    return '' if found == step else f'its metadata says step {found!r}'


def _differences(saved, wanted, section=''):
    """'field: saved there, wanted here' for each field of two nested dicts that both have, but with other values.

    A field's name is unique in a recipe, but for the `kind` of a section, which goes by the section's name.
    """
    different = []
    for name in (name for name in wanted if name in saved):
        if isinstance(wanted[name], dict) and isinstance(saved[name], dict):
            different += _differences(saved[name], wanted[name], name)
        elif wanted[name] != saved[name]:
            shown = section if name == 'kind' else name
            different.append(f'{shown}: {saved[name]!r} there, {wanted[name]!r} here')
    return different


def name_of(data):
    """The name of the file that holds these bytes, as one of the newest."""
    return _name('step', decode(data)[1]['step'], _digest(data))


def _name(kind, step, digest):
    return f'{kind}-{step:08d}-{digest}.safetensors'


def _digest(data):
    return hashlib.sha256(data).hexdigest()[:32]


def step_of(file):
    return int(PATTERN.fullmatch(file.name)[2])
