"""A few threads that read cold files, and nothing else: a volume that hangs keeps these, and those
who ask for a moved leaf no longer than a deadline.

A read that hangs in the kernel cannot be ended. Its thread is given up until the volume answers,
and once all of them are, whoever asks is refused at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Any, TypeVar

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

T = TypeVar("T")

THREADS = 4
"""Reads at once."""

WAITING = 16
"""Calls that wait for a read at once, those that are read among them."""

DEADLINE_S = 5.0
"""For one read, the time in the queue included, seconds."""


def _not_counted(_: str) -> None:
    pass


class ColdReads:
    """Safe for any thread. Its threads are daemons: one that hangs keeps no process from ending."""

    def __init__(
        self, *, deadline_s: float = DEADLINE_S, count: Callable[[str], None] = _not_counted
    ) -> None:
        """`count` is told what came of each read: `done` (also where a file is missing), `late` or
        `refused`.
        """
        self._deadline_s = deadline_s
        self._count = count
        self._changing = threading.Lock()
        self._waiting = 0
        self._hanging: set[Future[Any]] = set()
        self._threads: list[threading.Thread] = []
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()

    def run(self, read: Callable[[], T]) -> T:
        """Run it on one of the threads, and return what it returns. Raises what it raises, and
        FailureError COLD_FILES_MISSING if it is not done in time, or if there is no place for it.
        """
        self._enter()
        try:
            found: Future[T] = Future()
            self._queue.put((found, read))
            wait((found,), self._deadline_s)
            with self._changing:
                is_late = not found.done()
                if is_late and not found.cancel():
                    self._hanging.add(found)
        finally:
            with self._changing:
                self._waiting -= 1
        if is_late:
            self._count("late")
            raise _unavailable(f"Cold files were not read within {self._deadline_s:g} s.")
        self._count("done")
        return found.result()

    def _enter(self) -> None:
        """Take a place, and see that there is a thread for it. Raises FailureError."""
        with self._changing:
            if len(self._hanging) < THREADS and self._waiting < WAITING:
                self._waiting += 1
                if len(self._threads) < min(THREADS, self._waiting + len(self._hanging)):
                    name = f"cold-{len(self._threads)}"
                    self._threads.append(
                        threading.Thread(target=self._work, name=name, daemon=True)
                    )
                    self._threads[-1].start()
                return
            hanging = len(self._hanging)
        self._count("refused")
        if hanging == THREADS:
            raise _unavailable(f"All {THREADS} reads of cold files hang.")
        raise _unavailable(f"{WAITING} calls wait for cold files already.")

    def _work(self) -> None:
        while True:
            found, read = self._queue.get()
            if found.set_running_or_notify_cancel():
                try:
                    found.set_result(read())
                except BaseException as error:
                    found.set_exception(error)  # it is raised where it was asked for
                with self._changing:
                    self._hanging.discard(found)
            del found, read


def _unavailable(text: str) -> FailureError:
    detail = f"{text} Look at the volume that they are on, and ask again."
    return FailureError(failures_pb2.REASON_COLD_FILES_MISSING, detail)
