"""The thread pool of a listener, without a queue: when all threads are busy, a call is refused at
once with a typed failure.

gRPC's own bound on concurrent calls refuses without a reason of ours, and without a bound the calls
that wait for a thread pile up. The refusal runs on the thread that takes up new calls; while it is
busy with that, no further calls are taken up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

REFUSING = 16
"""Threads beyond the calls that are served at once: for calls that are read and refused."""

_local = threading.local()


def refusing() -> bool:
    """Whether this call has no thread of its own: it must be refused and must not wait."""
    return getattr(_local, "refusing", False)


class Threads(futures.ThreadPoolExecutor):
    """A call that is submitted while all threads are busy runs on the submitting thread, where
    `refusing` is true.
    """

    def __init__(self, max_calls: int, name: str) -> None:
        super().__init__(max_calls + REFUSING, thread_name_prefix=name)
        self._free = max_calls + REFUSING
        self._counting = threading.Lock()

    def submit(
        self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> futures.Future[T]:
        """Run the call on a thread of the pool, or here and now if none is free."""
        with self._counting:
            free = self._free > 0
            if free:
                self._free -= 1
        if free:
            return super().submit(self._counted, call, *args, **kwargs)
        done: futures.Future[T] = futures.Future()
        _local.refusing = True
        try:
            done.set_result(call(*args, **kwargs))
        except BaseException as error:
            # as on a thread of its own: it is its caller's, and not that of who submits
            done.set_exception(error)
        finally:
            _local.refusing = False
        return done

    def _counted(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        finally:
            with self._counting:
                self._free += 1
