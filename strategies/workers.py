"""Several workers on this machine: starts them, shows what they say, ends them together. Needs no TensorFlow.

    launch([sys.executable, 'train.py', '--model=cnn', '--virtual_devices=2'], num_workers=2)

This is for trying out on one machine's CPU what a cluster does. It divides nothing: workers on one machine would fight
for its GPUs, and one process drives them all better. How to start on real clusters is in strategies/launch/.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

from errors import FAILED, INTERRUPTED, PREEMPTED

GRACE = 60.           # seconds: workers that agreed to stop save first; a worker that is left over after this hangs
LAST_WORDS = 30.      # seconds: the others have their own error to say; those that jax joins may find it after 20
TERM_SECONDS = 3.     # from SIGTERM to SIGKILL
POLL = 0.05           # also the longest time before a signal is passed on
_ASKED = {-signal.SIGTERM: PREEMPTED, -signal.SIGINT: INTERRUPTED}      # codes of a worker that was asked to stop

# What a worker is exec'ed through: safe where other threads run, which Popen's preexec_fn is not.
_GUARD = '''
import ctypes, os, signal, sys
launcher, command = int(sys.argv[1]), sys.argv[2:]
if sys.platform == 'linux':      # elsewhere nothing ends the workers of a launcher that is killed by SIGKILL
    ctypes.CDLL(None).prctl(1, ctypes.c_ulong(signal.SIGKILL))      # PR_SET_PDEATHSIG; exec keeps it
if os.getppid() != launcher:     # it died before prctl
    sys.exit(1)
try:
    os.execvp(command[0], command)
except OSError as error:
    sys.exit(f'error: {error.strerror}: {command[0]}')
'''


def launch(command, num_workers):
    """Runs `num_workers` processes of `command` with a TF_CONFIG each, and returns when all have ended.

    Each line of theirs is shown after `[worker i] `; an `error: ` line that several workers say is shown once. On a
    terminal, worker 0 keeps the terminal as its stderr, so that its progress bar shows; what it writes there passes
    the launcher by. SIGTERM and SIGINT are passed on to every worker, as often as they come. No worker outlives the
    launcher: one that is killed by SIGKILL takes them along (on Linux; call this in a thread that lives until the end).

    Args:
        command: list of the program and its arguments.

    Returns:
        0 if every worker ended with 0. There is no time limit for the last one: it may still evaluate or export.
        PREEMPTED or INTERRUPTED if a worker ended with it. The others stop together with it, whatever their own code
        is; what still runs GRACE seconds later is killed.
        Otherwise the code of the worker that failed first, or FAILED if it died by a signal. The others are stopped,
        for they may wait in a collective for ever, and a last line says which worker it was.
    """
    workers, show = [], _Show()
    with _Signals() as signals:
        try:
            addresses = free_addresses(num_workers)
            for index in range(num_workers):
                workers.append(_Worker(command, index, addresses, inherit_stderr=show.terminal and index == 0))
            for worker in workers:
                worker.read(show)
            code, message = _wait(workers, signals)
        finally:
            for worker in workers:
                worker.kill()
            for worker in workers:
                worker.close()
    if message:
        show(sys.stderr, message)
    return code


def free_addresses(count):
    """Free now: another program could take one before the worker does, and that worker would then say so and fail."""
    sockets = [socket.socket() for _ in range(count)]      # open together, or the same port would be found twice
    try:
        for s in sockets:
            s.bind(('127.0.0.1', 0))
        return ['{}:{}'.format(*s.getsockname()) for s in sockets]
    finally:
        for s in sockets:
            s.close()


def _wait(workers, signals):
    """Waits for all workers; ends those that would hang. Returns (exit code, what to say about it or None)."""
    def wait(done, seconds=float('inf')):
        deadline = time.monotonic() + seconds
        while not done() and time.monotonic() < deadline:
            for number in signals.take():
                for worker in workers:
                    worker.pass_on(number)
            time.sleep(POLL)
        return done()

    def left():
        return [w for w in workers if w.code is None]

    wait(lambda: not left() or any(w.code for w in workers))
    # Seen at the same time, a death by a signal is the cause and the rest its consequence.
    first = min((w for w in workers if w.code), key=lambda w: (w.code > 0, w.code not in _ASKED.values()), default=None)
    if first is None:
        return 0, None
    if first.code in _ASKED.values():
        if wait(lambda: not left(), GRACE):
            return first.code, None
        names = ' and '.join(f'worker {w.index}' for w in left())
        return first.code, f'error: {names} still ran {GRACE:.0f} s after worker {first.index} had stopped: killed'
    if not wait(lambda: not left(), LAST_WORDS):
        for worker in left():
            worker.send(signal.SIGTERM)
        wait(lambda: not left(), TERM_SECONDS)
    if first.code > 0:
        return first.code, f'error: worker {first.index} failed with exit code {first.code}; the others were stopped'
    return FAILED, (f'error: worker {first.index} was killed by {signal.Signals(-first.code).name}; the other workers '
                    'were stopped. The same command resumes from the newest checkpoint')


class _Worker:
    """One process in a session of its own: the terminal's Ctrl-C reaches it through the launcher alone, so once."""

    def __init__(self, command, index, addresses, inherit_stderr):
        config = {'cluster': {'worker': addresses}, 'task': {'type': 'worker', 'index': index}}
        self.index, self._readers, self._passed_on = index, [], set()
        self._process = subprocess.Popen(
            [sys.executable, '-I', '-S', '-c', _GUARD, str(os.getpid()), *command], start_new_session=True,
            env={**os.environ, 'TF_CONFIG': json.dumps(config), 'PYTHONUNBUFFERED': '1'}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=None if inherit_stderr else subprocess.PIPE)

    @property
    def code(self):
        """None while it runs. One that a passed-on signal killed, before it could handle it, stopped as asked."""
        code = self._process.poll()
        return _ASKED[code] if code in _ASKED and -code in self._passed_on else code

    def read(self, show):
        for pipe, stream in ((self._process.stdout, sys.stdout), (self._process.stderr, sys.stderr)):
            if pipe:
                self._readers.append(threading.Thread(target=self._read, args=(pipe, stream, show), daemon=True))
                self._readers[-1].start()

    def _read(self, pipe, stream, show):
        with pipe:     # closed early if nobody reads our output any more: the worker then meets a broken pipe, as alone
            for line in pipe:
                try:
                    show(stream, line.decode(errors='replace').rstrip('\n'), self.index)
                except BrokenPipeError:
                    return

    def pass_on(self, number):
        if self.code is None:
            self._passed_on.add(number)
            self.send(number)

    def send(self, number):
        self._process.send_signal(number)

    def kill(self):
        """Ends what is left of its session: also a process that it started, which would keep the pipes open."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):      # nothing is left; of a zombie macOS says the latter
            pass

    def close(self):
        """Takes what it said last."""
        self._process.wait()
        for reader in self._readers:
            reader.join()


class _Show:
    """Writes whole lines, one at a time."""

    def __init__(self):
        self.terminal = sys.stderr.isatty()
        self._lock, self._errors = threading.Lock(), {}

    def __call__(self, stream, line, index=None):
        with self._lock:
            if line.startswith('error: ') and self._errors.setdefault(line, index) != index:
                return
            # Worker 0's bar, which it draws again. In one write: it writes to the terminal at any time.
            clear = '\r\x1b[K' if self.terminal and stream.isatty() else ''
            stream.write(clear + (line if index is None else f'[worker {index}] {line}') + '\n')
            stream.flush()


class _Signals:
    """Collects SIGTERM and SIGINT. They are passed on from the loop that waits, when every worker has started."""

    def __init__(self):
        self._received, self._before = [], {}

    def take(self):
        taken, self._received = self._received, []
        return taken

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():     # Python delivers signals only there
            self._before = {s: signal.signal(s, lambda number, _: self._received.append(number))
                            for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)
