"""Waits until somebody asks the process to end.

The kernel hands a signal to any thread; Python runs its handler in the main one, when that wakes. A
main thread that waits for a lock wakes only if the signal came to itself. To a process that was
stopped and goes on (SIGTERM, then SIGCONT, as systemd and the kubelet's runtimes send them) it
mostly comes to another, and nobody ever learns of it. So the main thread waits for a byte, which
Python's own C handler writes from whichever thread it runs in.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import threading

from capsign_wire import logs

SPARE_SECONDS = 10.0
"""How long an end may take beside the drain. The chart gives a pod fifteen seconds beside it."""

ASKS = (signal.SIGTERM, signal.SIGINT)


class Ending:
    """From when it is made, SIGTERM and SIGINT are remembered. For the main thread; once in a
    process.
    """

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
