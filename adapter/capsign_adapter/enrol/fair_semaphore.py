"""A semaphore that is fair between owners: bounds how many callers ask the cluster at the same
time, in all and for each source address.

A review may take long, and many invalid tokens from one address must not keep the pods at other
addresses waiting. Many pods can share one address (a node that rewrites senders' addresses), so one
address may hold several permits.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    """A caller that waits; compared by identity."""

    owner: Hashable


class FairSemaphore:
    """Safe for any thread."""

    def __init__(self, most: int, of_one: int) -> None:
        """`most` permits in all, `of_one` for each owner."""
        self._most = most
        self._of_one = of_one
        self._changed = threading.Condition()
        self._held: Counter[Hashable] = Counter()
        self._waiting: list[_Waiter] = []

    @contextmanager
    def acquire(self, owner: Hashable, seconds: float) -> Iterator[None]:
        """Hold a permit until the block ends. Waits up to `seconds` for it. Raises FailureError
        OVERLOADED.
        """
        me = _Waiter(owner)
        with self._changed:
            self._waiting.append(me)
            came = self._changed.wait_for(lambda: self._next() is me, timeout=seconds)
            self._waiting.remove(me)
            if came:
                self._held[owner] += 1
            self._changed.notify_all()
        if not came:
            sentence = "Too many pods ask for certificates at once."
            raise FailureError(failures_pb2.REASON_OVERLOADED, sentence, retry_after_ms=500)
        try:
            yield
        finally:
            with self._changed:
                self._held[owner] -= 1
                if not self._held[owner]:
                    del self._held[owner]
                self._changed.notify_all()

    def _next(self) -> _Waiter | None:
        """Returns who gets the next free permit: the one that has waited longest for the owner that
        holds fewest.
        """
        if self._held.total() >= self._most:
            return None
        may = [one for one in self._waiting if self._held[one.owner] < self._of_one]
        return min(may, key=lambda one: self._held[one.owner], default=None)
