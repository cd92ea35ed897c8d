"""Files that survive a power cut, and folders that are whole."""

import contextlib
import os
import pathlib
import shutil

from errors import RunError


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


@contextlib.contextmanager
def whole_folder(folder, what):
    """A new folder to write into, which takes the place of `folder` at the end; any exception leaves that as it was.

    what: is written, in the message. Raises RunError: it cannot be written.
    """
    folder = pathlib.Path(folder)
    temporary = folder.with_name(f'.{folder.name}.tmp')
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    except OSError as error:
        raise RunError(f'{what} could not be written to {folder}: {error.strerror or error}') from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
