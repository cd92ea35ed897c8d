"""The exceptions that a front door prints as one line, and the look-up that explains itself."""

import difflib


class UserError(ValueError):
    """A mistake or a lack that the user can mend.

    The message is one line: the argument in backticks, the rule, and what was received.
    """


class RunError(Exception):
    """A run cannot go on, through no mistake of its flags: a full disk, a broken file. The message is one line."""


class Stopped(Exception):
    """The run was stopped by `cause`: SIGTERM, SIGINT (Ctrl-C) or max_minutes. step: at which it was saved, if now."""

    def __init__(self, cause, step=None):
        saved = 'what was saved before is there' if step is None else f'saved at step {step}'
        super().__init__(f'stopped by {cause}; {saved}; the same command goes on from there')
        self.cause, self.step = cause, step


def lookup(known, name, argument):
    """Returns known[name]; an unknown name is an error that lists the known ones and the closest."""
    if name in known:
        return known[name]
    close = difflib.get_close_matches(str(name), list(known), n=1)
    hint = f' Did you mean {close[0]}?' if close else ''
    raise UserError(f'`{argument}` must be one of {", ".join(known)}. Received: {argument}={name!r}.{hint}')
