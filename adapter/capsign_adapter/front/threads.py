"""The threads of a listener. When all of them are taken, a call is refused at once, in our terms,
and waits nowhere.

gRPC's own bound on concurrent calls says so in words that carry no reason, and without a bound what
waits for a thread piles up. The refusal runs on the thread that takes up new calls: while it is
busy with that, what comes after stays outside.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

REFUSING = 16
"""Threads beside those that the places need: for calls that are looked at and refused."""

_local = threading.local()


def refusing() -> bool:
    """Whether this call has no thread: it must be refused and must not wait."""
    return getattr(_local, "refusing", False)


class Threads(futures.ThreadPoolExecutor):
    """So many threads and no queue: see above. A call that is submitted while all are busy runs
    where it is submitted."""

    def __init__(self, places: int, name: str) -> None:
        super().__init__(places + REFUSING, thread_name_prefix=name)
        self._free = places + REFUSING
        self._counting = threading.Lock()

    def submit(
        self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> futures.Future[T]:
        """Run the call on a thread, or at once as one that is to be refused."""
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
