"""A cache of public keys by context. Keys are kept until the adapter's hint says to ask again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from capsign_wire.adapter.v1 import signing_pb2
from capsign_wire.failures import FailureError
from capsign_wire.key_states import SIGNS
from capsign_wire.types.v1 import failures_pb2

from capsign_agent.handles.scope import HandleScope
from capsign_agent.sign import hashing
from capsign_agent.sign.fetch_cache import FetchCache

LONGEST_KEEP_S = 300.0
"""Seconds after which keys are fetched anew, whatever the hint says."""


class Known:
    """The keys of one context, those that sign first."""

    __slots__ = ("_mu", "expires", "fetched", "response")

    def __init__(self, response: signing_pb2.GetPublicKeysResponse, now: float) -> None:
        self.response = response
        self.fetched = now
        self.expires = now + min(LONGEST_KEEP_S, max(1.0, float(response.refresh_hint_s)))
        self._mu: Callable[[bytes], bytes] | None = None

    @property
    def is_kept(self) -> bool:
        """Always: so many contexts are within the agent's memory."""
        return True

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


class PublicKeys(FetchCache[Known]):
    """The cache, bounded by `most` contexts. For one event loop."""

    def __init__(self, fetch: Fetch, most: int, clock: Callable[[], float]) -> None:
        super().__init__(most, clock)
        self._fetch = fetch

    async def _load(self, scope: HandleScope) -> Known:
        request = signing_pb2.GetPublicKeysRequest(
            handle=scope.held.token, algorithm=scope.algorithm, context=scope.suffix
        )
        return Known(await self._fetch(request), self._clock())
