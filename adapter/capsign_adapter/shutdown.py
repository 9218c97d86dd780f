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


class ShutdownSignal:
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


def force_exit_after(seconds: float) -> None:
    """End the process after `seconds`, whatever hangs in it, and log that. Everything promised is
    durable at any moment; a token or disk that does not answer would otherwise keep the process
    until it is killed without a log line.

    While the interpreter shuts down none of its threads runs, and a module may hang just then. So a
    second later `faulthandler` writes the traceback of every thread and ends the process.
    """
    timer = threading.Timer(seconds, _cut_short, (seconds,))
    timer.daemon = True
    timer.start()
    faulthandler.dump_traceback_later(seconds + 1.0, exit=True)


def _cut_short(seconds: float) -> None:
    logs.error("adapter.cut_short", after_s=round(seconds, 1))
    os._exit(1)
