"""The exceptions that a front door prints as one line, and the look-up that explains itself."""

import difflib
import signal


class UserError(ValueError):
    """A mistake or a lack that the user can mend.

    The message is one line: the argument in backticks, the rule, and what was received.
    """


class RunError(Exception):
    """A run cannot go on, through no mistake of its flags: a full disk, a broken file. The message is one line."""


class Stopped(Exception):
    """SIGTERM or Ctrl-C: the run saved its state and can go on from `step`."""

    def __init__(self, step, number):
        super().__init__(f'stopped by {signal.Signals(number).name} and saved at step {step}; '
                         'the same command goes on from there')
        self.step, self.number = step, number


def lookup(known, name, argument):
    """Returns known[name]; an unknown name is an error that lists the known ones and the closest."""
    if name in known:
        return known[name]
    close = difflib.get_close_matches(str(name), list(known), n=1)
    hint = f' Did you mean {close[0]}?' if close else ''
    raise UserError(f'`{argument}` must be one of {", ".join(known)}. Received: {argument}={name!r}.{hint}')
