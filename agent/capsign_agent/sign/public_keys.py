"""A cache of public keys by context. Keys are kept until the adapter's hint says to ask again;
concurrent requests for the same context are one fetch.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from capsign_wire.adapter.v1 import signing_pb2
from capsign_wire.failures import FailureError
from capsign_wire.key_states import SIGNS
from capsign_wire.types.v1 import failures_pb2

from capsign_agent.handles.scope import HandleScope
from capsign_agent.sign import hashing

LONGEST_KEEP_S = 300.0
"""Seconds after which keys are fetched anew, whatever the hint says."""

MOST_FETCHES = 256
"""Fetches under way at once. A fetch goes on when its caller has gone, and applications choose
contexts freely, so there must be a bound.
"""


class Known:
    """The keys of one context, those that sign first."""

    __slots__ = ("_mu", "expires", "fetched", "response")

    def __init__(self, response: signing_pb2.GetPublicKeysResponse, now: float) -> None:
        self.response = response
        self.fetched = now
        self.expires = now + min(LONGEST_KEEP_S, max(1.0, float(response.refresh_hint_s)))
        self._mu: Callable[[bytes], bytes] | None = None

    def mu(self) -> tuple[str, Callable[[bytes], bytes]]:
        """The id of the key that signs now, and its mu function. Raises FailureError KEY_NOT_ACTIVE
        or INTERNAL.
        """
        newest = next((key for key in self.response.keys if key.state in SIGNS), None)
        if newest is None:
            raise FailureError(
                failures_pb2.REASON_KEY_NOT_ACTIVE,
                "The adapter has no key that signs in this context.",
            )
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
    """The cache, bounded by `most` contexts. For one event loop."""

    def __init__(self, fetch: Fetch, most: int, clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._most = most
        self._clock = clock
        self._known: OrderedDict[tuple[str, int, bytes], Known] = OrderedDict()
        self._fetching: dict[tuple[str, int, bytes], asyncio.Task[Known]] = {}

    def cached(self, scope: HandleScope) -> Known | None:
        """The keys, if they are cached and fresh."""
        known = self._known.get(scope.key)
        if known is None or known.expires <= self._clock():
            return None
        self._known.move_to_end(scope.key)
        return known

    async def get(self, scope: HandleScope, *, newer_than: float = -1.0) -> Known:
        """The keys; fetched if they are unknown, stale, or were fetched at or before `newer_than`.
        Raises FailureError; OVERLOADED if too many fetches are under way.
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
        """Forget everything, because the policy changed. Fetches under way still answer their
        callers, but are not cached.
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
