"""Public keys by context, as the adapter tells them: kept until its hint says to ask again, fetched
once however many ask.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from capsign_wire.adapter.v1 import signing_pb2
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_agent.handles.scope import HandleScope
from capsign_agent.sign import hashing

LONGEST_KEEP_S = 300.0
"""Kept no longer than this, whatever the hint says."""

MOST_FETCHES = 256
"""Questions under way at once. Each goes on when who asked has left, and an application chooses
contexts as it likes.
"""


class Known:
    """The keys of one context, newest first."""

    __slots__ = ("_mu", "expires", "fetched", "response")

    def __init__(self, response: signing_pb2.GetPublicKeysResponse, now: float) -> None:
        self.response = response
        self.fetched = now
        self.expires = now + min(LONGEST_KEEP_S, max(1.0, float(response.refresh_hint_s)))
        self._mu: Callable[[bytes], bytes] | None = None

    def mu(self) -> tuple[str, Callable[[bytes], bytes]]:
        """The kid that signs now, and the hasher of its mu. Raises FailureError KEY_NOT_ACTIVE or
        INTERNAL.
        """
        if not self.response.keys:
            raise FailureError(
                failures_pb2.REASON_KEY_NOT_ACTIVE, "The adapter has no key for this context."
            )
        newest = self.response.keys[0]
        if self._mu is None:
            try:
                self._mu = hashing.mu_hasher(newest.spki)
            except ValueError:
                raise FailureError(
                    failures_pb2.REASON_INTERNAL, "The adapter's key is no ML-DSA-65 key."
                ) from None
        return newest.kid, self._mu


Fetch = Callable[[signing_pb2.GetPublicKeysRequest], Awaitable[signing_pb2.GetPublicKeysResponse]]


class PublicKeys:
    """A bounded cache. For one event loop."""

    def __init__(self, fetch: Fetch, most: int, clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._most = most
        self._clock = clock
        self._known: OrderedDict[tuple[str, int, bytes], Known] = OrderedDict()
        self._fetching: dict[tuple[str, int, bytes], asyncio.Task[Known]] = {}

    def cached(self, scope: HandleScope) -> Known | None:
        """What is known and still fresh."""
        known = self._known.get(scope.key)
        if known is None or known.expires <= self._clock():
            return None
        self._known.move_to_end(scope.key)
        return known

    async def get(self, scope: HandleScope, *, newer_than: float = -1.0) -> Known:
        """The keys; fetched if they are unknown, stale, or were fetched at or before `newer_than`.
        Raises FailureError, OVERLOADED if too many are being fetched.
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
            task.add_done_callback(lambda task: self._fetched(scope.key, task))
        return await asyncio.shield(task)

    def clear(self) -> None:
        """Forget everything: the policy changed. What was asked for before is for those who wait
        for it, and is not kept.
        """
        self._known.clear()
        self._fetching.clear()

    def _fetched(self, key: tuple[str, int, bytes], task: asyncio.Task[Known]) -> None:
        if self._fetching.get(key) is not task:
            return
        del self._fetching[key]
        if not task.cancelled() and task.exception() is None:
            self._known[key] = task.result()
            while len(self._known) > self._most:
                self._known.popitem(last=False)

    async def _load(self, scope: HandleScope) -> Known:
        request = signing_pb2.GetPublicKeysRequest(
            handle=scope.held.token, algorithm=scope.algorithm, context=scope.suffix
        )
        return Known(await self._fetch(request), self._clock())
