"""Waits for SIGTERM or SIGINT, and bounds the time that the process then takes to end.

The kernel delivers a signal to any thread; Python runs its handler in the main thread, when that
wakes. A main thread that waits for a lock wakes only if the signal was delivered to itself. In a
process that was stopped and continues (SIGTERM, then SIGCONT, as systemd and container runtimes
send them) it is mostly delivered to another thread, and would never be handled. So the main thread
waits for a byte in a pipe, which Python's own C handler writes from whichever thread it runs in.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import threading

from capsign_wire import logs

SPARE_SECONDS = 10.0
"""How long shutting down may take in addition to the drain. The chart gives a pod fifteen seconds
for it.
"""

ASKS = (signal.SIGTERM, signal.SIGINT)


class Ending:
    """Records SIGTERM and SIGINT from when it is made. For the main thread, once in a process."""

    def __init__(self) -> None:
        self._reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in ASKS:
            signal.signal(number, lambda *_: None)

    def wait(self) -> None:
        """Returns when one of them has come."""
        while not set(os.read(self._reader, 64)) & set(ASKS):
            pass  # another signal, which has its own handler


def bound(seconds: float) -> None:
    """End the process after so long, whatever hangs in it, and say so. What was promised is durable
    at any moment, and who is waited for in vain (a token that does not answer, a disk) would keep
    the process until it is killed without a word.

    While Python takes itself apart none of its threads runs, and a module may hang just then: a
    second later the traceback of every thread is written, and the process ended, without Python.
    """
    timer = threading.Timer(seconds, _cut_short, (seconds,))
    timer.daemon = True
    timer.start()
    faulthandler.dump_traceback_later(seconds + 1.0, exit=True)


def _cut_short(seconds: float) -> None:
    logs.error("adapter.cut_short", after_s=round(seconds, 1))
    os._exit(1)
