"""What can end a call into the graph, or the run: SIGTERM, Ctrl-C, `max_minutes`, and a second's pause for the log.

The loop reads these as numbers at every step and sends them along in the step's all-reduce, so that all workers hear of
a signal to one of them at the same step, and stop together.
"""

import contextlib
import signal
import socket
import threading
import time

import numpy as np
import tensorflow as tf

# By precedence: when several apply, the run reports the first.
CAUSES = ('SIGINT', 'SIGTERM', 'max_minutes')
PAUSE = len(CAUSES)
FLAGS = PAUSE + 1      # how many there are


class Interrupt:
    """While it is open, `flags` (float32 [4] in host memory) says what has been asked for, and Python's own handlers
    are out of the way. A second Ctrl-C stops at once. It can be opened again: what was asked for stays asked for, and
    `max_minutes` count from the first time.

    A signal's handler in Python would run only when the call into the graph returns, so a thread waits for the
    number that the C handler writes.
    """

    def __init__(self, max_minutes=0.):
        with tf.device('CPU:0'):
            self.flags = tf.Variable(tf.zeros([FLAGS]), trainable=False, name='interrupt')
        self._values, self._lock = np.zeros([FLAGS], np.float32), threading.Lock()
        self._seconds, self._before, self._interrupted = max_minutes * 60, {}, False
        self._deadline = None

    def __enter__(self):
        self._deadline = self._deadline or time.monotonic() + self._seconds
        self._alarm = threading.Timer(max(0., self._deadline - time.monotonic()), self._set,
                                      [CAUSES.index('max_minutes')])
        self._alarm.daemon = True
        if self._seconds:
            self._alarm.start()
        if threading.current_thread() is threading.main_thread():     # Python takes handlers only there
            read, self._write = socket.socketpair()      # the thread's own: it may outlive this opening
            self._write.setblocking(False)
            threading.Thread(target=self._listen, args=[read], daemon=True).start()
            self._wakeup = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
            self._before = {s: signal.signal(s, self._handle) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_):
        self._alarm.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._before:
            signal.set_wakeup_fd(self._wakeup)
            self._write.close()      # ends the thread
            self._before = {}

    @contextlib.contextmanager
    def pause_after(self, seconds):
        """Lets a call that is open after `seconds` return, to log and to save."""
        self._set(PAUSE, 0.)
        timer = threading.Timer(seconds, self._set, [PAUSE])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _listen(self, read):
        while number := read.recv(1):
            name = signal.Signals(number[0]).name
            if name in CAUSES:
                self._set(CAUSES.index(name))
        read.close()

    def _handle(self, number, _):
        if number == signal.SIGINT:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True

    def _set(self, index, value=1.):
        with self._lock:
            self._values[index] = value
            self.flags.assign(self._values)


def cause(flags):
    """float [4], summed over all replicas -> the name of what stops the run, or None."""
    return next((name for name, flag in zip(CAUSES, flags) if flag), None)
