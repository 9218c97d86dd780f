"""The single thread that calls a token's module.

PKCS#11 modules are initialised for one thread, while the binding releases the GIL: two threads in
one module crash it. So callers pass their calls to this thread and wait. The number of waiting
calls and their waits are bounded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from capsign_adapter.token.interface import TokenUnavailableError

T = TypeVar("T")


class _Call:
    """One operation, and the lock that its caller waits for: a bare lock is the fastest way to wait
    in Python.
    """

    __slots__ = ("abandoned", "done", "error", "operation", "result")

    def __init__(self, operation: Callable[[], Any]) -> None:
        self.operation = operation
        self.result: Any = None
        self.error: BaseException | None = None
        self.abandoned = False
        self.done = threading.Lock()
        self.done.acquire()


class TokenThread:
    """Runs operations one at a time, in order of arrival."""

    def __init__(self, name: str, *, waiting: int) -> None:
        """`waiting` bounds the calls in the queue; a burst may exceed it by the number of threads
        that check it at the same moment.
        """
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._waiting = waiting
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def run(self, operation: Callable[[], T], timeout_s: float) -> T:
        """Run an operation and return its result. Raises its exception, and TokenUnavailableError
        if it was not done in time.
        """
        # after a fork the thread is not there: never wait for it
        if self._stopped or not self._thread.is_alive():
            raise TokenUnavailableError("the token is closed in this process; open it again")
        if self._calls.qsize() >= self._waiting:
            raise TokenUnavailableError(
                f"{self._waiting} calls wait for the token already; send less, or add "
                f"adapter processes"
            )
        call = _Call(operation)
        self._calls.put(call)
        if not call.done.acquire(timeout=timeout_s):
            call.abandoned = True  # not begun: it never will be. Begun: its result is dropped.
            raise TokenUnavailableError(
                f"the token did not answer within {timeout_s:g} s; see to the HSM and its network"
            )
        if call.error is not None:
            raise call.error
        result: T = call.result
        return result

    @property
    def depth(self) -> int:
        """How many calls wait now."""
        return self._calls.qsize()

    def stop(self, timeout_s: float) -> None:
        """End the thread after the present operation; waiting calls are refused."""
        self._stopped = True
        self._calls.put(None)
        self._thread.join(timeout_s)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            if call.abandoned:
                continue
            if self._stopped:
                call.error = TokenUnavailableError("the token was closed before this call began")
            else:
                try:
                    call.result = call.operation()
                except BaseException as error:
                    call.error = error
            call.done.release()
            del call  # no result stays alive in this frame while the thread waits
        while not self._calls.empty():
            late = self._calls.get()
            if late is not None:
                late.error = TokenUnavailableError("the token was closed before this call began")
                late.done.release()
