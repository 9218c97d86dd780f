"""A cache of what the adapter tells of contexts. What is fetched is kept until it is to be asked
for again; concurrent requests for the same context are one fetch.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_agent.handles.scope import HandleScope

MOST_FETCHES = 256
"""Fetches under way at once. A fetch goes on when its caller has gone, and applications choose
contexts freely, so there must be a bound.
"""

Key = tuple[str, int, bytes]


class Fetched(Protocol):
    """What was fetched. Both are readings of the cache's clock, seconds."""

    @property
    def fetched(self) -> float: ...

    @property
    def expires(self) -> float: ...

    @property
    def is_kept(self) -> bool:
        """Whether it is small enough to keep."""


Value = TypeVar("Value", bound=Fetched)


class FetchCache(ABC, Generic[Value]):
    """Bounded by `most` contexts. For one event loop."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._known: OrderedDict[Key, Value] = OrderedDict()
        self._fetching: dict[Key, asyncio.Task[Value]] = {}

    @abstractmethod
    async def _load(self, scope: HandleScope) -> Value:
        """Ask the adapter. Raises FailureError."""

    def cached(self, scope: HandleScope) -> Value | None:
        """What is known of this context, if it is cached and fresh."""
        known = self._known.get(scope.key)
        if known is None or known.expires <= self._clock():
            return None
        self._known.move_to_end(scope.key)
        return known

    async def get(self, scope: HandleScope, *, newer_than: float = -1.0) -> Value:
        """What the adapter tells; fetched if it is unknown, stale, or was fetched at or before
        `newer_than`. Raises FailureError; OVERLOADED if too many fetches are under way.
        """
        known = self.cached(scope)
        if known is not None and known.fetched > newer_than:
            return known
        task = self._fetching.get(scope.key)
        if task is None:
            if len(self._fetching) >= MOST_FETCHES:
                detail = "The agent asks for many public keys already."
                raise FailureError(failures_pb2.REASON_OVERLOADED, detail, retry_after_ms=500)
            task = self._fetching[scope.key] = asyncio.create_task(self._load(scope))
            task.add_done_callback(lambda task: self._done(scope.key, task))
        return await asyncio.shield(task)

    def clear(self) -> None:
        """Forget everything, because the policy changed. Fetches under way still answer their
        callers, but are not cached.
        """
        self._known.clear()
        self._fetching.clear()

    def _done(self, key: Key, task: asyncio.Task[Value]) -> None:
        if self._fetching.get(key) is not task:
            return
        del self._fetching[key]
        if not task.cancelled() and task.exception() is None and task.result().is_kept:
            self._known[key] = task.result()
            while len(self._known) > self._most:
                self._known.popitem(last=False)
