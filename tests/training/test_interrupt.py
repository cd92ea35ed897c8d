"""Flags that signals raise, as training/interrupt.py has them."""

import os
import signal
import threading
import time

import numpy as np

from training.interrupt import CAUSES, Interrupt


def test_opened_again_it_hears_signals_and_its_threads_end(monkeypatch):
    """The thread of an opening before must not touch the socket of the next: it closed it, sometimes."""
    failed, before = [], set(threading.enumerate())
    monkeypatch.setattr(threading, 'excepthook', failed.append)
    interrupt = Interrupt()
    for _ in range(300):
        with interrupt:
            pass
    with interrupt:
        os.kill(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + 10
        while not interrupt.flags.numpy().any() and time.monotonic() < deadline:
            time.sleep(0.01)
        expected = np.zeros(len(CAUSES) + 1)
        expected[CAUSES.index('SIGTERM')] = 1
        np.testing.assert_array_equal(interrupt.flags, expected)
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert failed == [] and set(threading.enumerate()) <= before
