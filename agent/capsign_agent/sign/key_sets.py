"""A cache of JWK Sets by context, for applications that verify by themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from capsign_wire.adapter.v1 import signing_pb2

from capsign_agent.handles.scope import HandleScope
from capsign_agent.sign.fetch_cache import FetchCache

MOST_SETS, MOST_BYTES = 16, 64 * 1024
"""Sets that are kept, and bytes of the largest one that is: together a mebibyte. A dozen versions
of every algorithm have 64 KiB.
"""


class KnownSet:
    """A set, and until when it may be kept."""

    __slots__ = ("expires", "fetched", "response")

    def __init__(self, response: signing_pb2.GetJwksResponse, now: float) -> None:
        self.response = response
        self.fetched = now
        self.expires = now + float(response.max_age_s)

    @property
    def is_kept(self) -> bool:
        """Whether it is small enough to keep."""
        return len(self.response.key_set) <= MOST_BYTES


Fetch = Callable[[signing_pb2.GetJwksRequest], Awaitable[signing_pb2.GetJwksResponse]]


class KeySets(FetchCache[KnownSet]):
    """The cache. For one event loop."""

    def __init__(self, fetch: Fetch, clock: Callable[[], float]) -> None:
        super().__init__(MOST_SETS, clock)
        self._fetch = fetch

    async def _load(self, scope: HandleScope) -> KnownSet:
        asked = self._clock()  # it may be as old as the question
        request = signing_pb2.GetJwksRequest(handle=scope.held.token, context=scope.suffix)
        return KnownSet(await self._fetch(request), asked)
