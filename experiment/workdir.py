"""A run's folder: whose it is, what is in it, and whether it is finished. Needs no TensorFlow.

    recipe.json  tokenizer/  checkpoints/  metrics.jsonl  tensorboard/  export/1/  results.json  lock
"""

import fcntl
import json
import os
import pathlib
import socket

from errors import RunError, UserError
from settings.recipe import Recipe, differences
from training.files import write_atomically


def default_workdir(name, overrides):
    """runs/NAME, with the overridden fields, so that two experiments do not meet in one folder."""
    changed = ''.join(f',{field}={value}' for field, value in sorted(overrides.items()))
    return 'runs/' + (name + changed).replace('/', '_')


class Workdir:
    def __init__(self, path):
        if '://' in str(path):      # locks and atomic renames need one, and Path would make a folder of this name
            raise UserError('the folder of a run must be a path on this machine; a mounted bucket is one, see '
                            f'docs/limits.md. Received: {str(path)!r}')
        self.path, self._lock = pathlib.Path(path).expanduser(), None
        self.checkpoints, self.export = self.path / 'checkpoints', self.path / 'export' / '1'

    @property
    def begun(self):
        """Whether the run has a checkpoint, be it broken."""
        return any(self.checkpoints.glob('step-*.safetensors'))

    def recipe(self):
        """The recipe of the run in this folder.

        Raises:
            UserError: there is none, or it cannot be read.
        """
        file = self.path / 'recipe.json'
        if not file.exists():
            raise UserError(f'`workdir` must hold a run, made by train.py; {file} is missing. '
                            f'Received: workdir={str(self.path)!r}')
        try:
            return Recipe.from_json(file.read_text(encoding='utf-8'))
        except ValueError as error:     # a UserError, or what is not UTF-8
            raise UserError(f'{file} is not a recipe of this version: {error}') from None

    def tokenizer(self):
        """{file name: bytes} of the run's tokenizer, or None."""
        files = sorted(file for file in (self.path / 'tokenizer').glob('*') if not file.name.startswith('.'))
        return {file.name: file.read_bytes() for file in files} or None

    def lock(self):
        """Keeps every other run out of the folder, which is made if need be, until `unlock` or the process's end.

        The system takes the lock away from a process that dies. The file stays: removing it would let two processes
        lock a file of this name each.

        Raises:
            UserError: the folder cannot be made or written to. RunError: another process has it, or the file system has
                no locks.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = open(self.path / 'lock', 'a+', encoding='utf-8')
        except OSError as error:
            raise UserError(f'`workdir` must be a folder that can be made and written to: {error.strerror}. '
                            f'Received: workdir={str(self.path)!r}') from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = ' on host '.join(file.read().split()) or '(starting)'
            file.close()
            raise RunError(f'another run is using {self.path}: process {owner}. Wait for it, or choose another '
                           '--workdir') from None
        except OSError as error:
            file.close()
            raise RunError(f'{self.path / "lock"} cannot be locked ({error.strerror}): `workdir` must be on a file '
                           'system with flock, so that two runs cannot write to it at once') from None
        file.truncate(0)
        file.write(f'{os.getpid()} {socket.gethostname()}\n')
        file.flush()
        self._lock = file

    def unlock(self):
        if self._lock:
            self._lock.close()
            self._lock = None

    def claim(self, recipe, tokenizer=None):
        """Makes the folder the recipe's own; refuses one of another recipe, and leaves it as it was.

        Args:
            tokenizer: {file name: bytes} of the tokenizer that was made for the run, if any.
        """
        self.check(recipe)
        self.path.mkdir(parents=True, exist_ok=True)
        if tokenizer and self.tokenizer() is None:
            (self.path / 'tokenizer').mkdir(exist_ok=True)
            for name, content in tokenizer.items():
                write_atomically(self.path / 'tokenizer' / name, content)
        if not (self.path / 'recipe.json').exists():
            write_atomically(self.path / 'recipe.json', recipe.to_json().encode())

    def check(self, recipe):
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f'`workdir` must be a folder. Received: workdir={str(self.path)!r}')
        if (self.path / 'recipe.json').exists():
            different = differences(self.recipe(), recipe)
            if different:
                raise UserError(f'`workdir` {self.path} belongs to another recipe ({"; ".join(different)}). '
                                'Choose another --workdir, or remove that folder')

    def resumed_recipe(self, recipe):
        """`recipe`, with what the run in this folder has already decided for `auto`."""
        return self.recipe() if (self.path / 'recipe.json').exists() else recipe

    def results(self):
        """results.json of a finished run, else None."""
        file = self.path / 'results.json'
        return json.loads(file.read_text(encoding='utf-8')) if file.exists() else None

    def finish(self, results):
        write_atomically(self.path / 'results.json', (json.dumps(results, indent=2) + '\n').encode())
