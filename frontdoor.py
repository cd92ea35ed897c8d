"""What every front door (train.py, evaluate.py, ...) does around its work: flags, silence, errors, exit codes."""

import contextlib
import dataclasses
import os
import signal
import sys

from absl import app, flags, logging

from errors import FAILED, INTERRUPTED, PREEMPTED, USAGE, RunError, Stopped, UserError
from strategies import tpu

flags.disclaim_key_flags()      # flags defined here belong to the front door, whose --help shows them


def define_flags(cls, skip=(), inherit=False):
    """Defines one flag for each field of a dataclass. inherit: the default is None, for 'not given'."""
    define = {str: flags.DEFINE_string, int: flags.DEFINE_integer, float: flags.DEFINE_float,
              bool: flags.DEFINE_boolean}
    for f in dataclasses.fields(cls):
        if f.name not in skip:
            define[f.type](f.name, None if inherit else f.default, f.metadata['help'])


def given(cls):
    """{field: value} of the flags of a dataclass that were given or have a default."""
    values = {f.name: flags.FLAGS[f.name].value for f in dataclasses.fields(cls) if f.name in flags.FLAGS}
    return {name: value for name, value in values.items() if value is not None}


def required(*names):
    for name in names:
        if not flags.FLAGS[name].value:
            raise UserError(f'`--{name}` is required: {flags.FLAGS[name].help}')


def run(main, define):
    """Parses flags, calls main(positional arguments) and ends the process with what it returns, None being 0.

    A user's mistake is one line.
    """
    define()
    app.run(lambda argv: sys.exit(_guarded(main, argv[1:])), flags_parser=_parse)


def _parse(argv):
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        _fail(' '.join(str(error).split()))
        sys.exit(USAGE)


def _guarded(main, arguments):
    signal.signal(signal.SIGTERM, _stop)
    if not flags.FLAGS['verbosity'].present:
        logging.set_verbosity(logging.ERROR)      # TensorFlow logs through absl too
    try:
        return main(arguments) or 0
    except UserError as error:
        _fail(error)
        return USAGE
    except Stopped as stop:
        print(stop, flush=True)
        return INTERRUPTED if stop.cause == 'SIGINT' else PREEMPTED
    except KeyboardInterrupt:
        _fail('interrupted; what was saved before is there')
        return INTERRUPTED
    except OSError as error:
        _fail(f'{error.strerror or error}: {error.filename}' if error.filename else error)
        return FAILED
    except RunError as error:
        _fail(error)
        return FAILED


def _stop(number, _):
    """Before and after the training loop, which has its own way, SIGTERM ends the process where it is."""
    raise Stopped(signal.Signals(number).name)


def _fail(message):
    print(f'error: {message}', file=sys.stderr, flush=True)


@contextlib.contextmanager
def quiet_tensorflow():
    """Around the first import of TensorFlow, which reads the environment then.

    Its C++ notes go nowhere, unless TF_CPP_MIN_LOG_LEVEL asks for them.
    """
    tpu.prepare_environment()
    if os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3') < '3':
        yield
        return
    sys.stderr.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)      # written before absl's logging starts, so the level alone does not silence them
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)
