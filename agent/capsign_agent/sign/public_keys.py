"""A cache of public keys by context. Keys are kept until the adapter's hint says to ask again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from capsign_wire.adapter.v1 import signing_pb2
from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.failures import FailureError
from capsign_wire.key_states import SIGNS
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2
from capsign_wire.types.v1 import signing_pb2 as types_pb2

from capsign_agent.handles.scope import HandleScope
from capsign_agent.sign import hashing
from capsign_agent.sign.fetch_cache import FetchCache

LONGEST_KEEP_S = 300.0
"""Seconds after which keys are fetched anew, whatever the hint says."""


class KeyInput(NamedTuple):
    """How a key takes a message."""

    kid: str
    of: Callable[[bytes], bytes]
    """From the message to the input."""


class Known:
    """The keys of one context, those that sign first."""

    __slots__ = ("_inputs", "expires", "fetched", "response")

    def __init__(self, response: signing_pb2.GetPublicKeysResponse, now: float) -> None:
        self.response = response
        self.fetched = now
        self.expires = now + min(LONGEST_KEEP_S, max(1.0, float(response.refresh_hint_s)))
        self._inputs: tuple[KeyInput, KeyInput | None] | None = None

    @property
    def is_kept(self) -> bool:
        """Always: so many contexts are within the agent's memory."""
        return True

    def inputs(self) -> tuple[KeyInput, KeyInput | None]:
        """How the key that signs now takes a message; and a second one, if two sign and it takes
        another input. Raises FailureError KEY_NOT_ACTIVE or INTERNAL.
        """
        if self._inputs is None:
            first, *rest = self._signing()
            second = rest[0] if rest else None
            both = second is not None and _differ(first, second)
            self._inputs = (
                _input_of(first),
                _input_of(second) if second is not None and both else None,
            )
        return self._inputs

    def _signing(self) -> list[types_pb2.PublicKey]:
        """The keys that sign now: those that the adapter names, or the first that may (an older
        adapter names none).
        """
        by_kid = {key.kid: key for key in self.response.keys}
        named = [by_kid[kid] for kid in self.response.signing_kids if kid in by_kid]
        found = named or [key for key in self.response.keys if key.state in SIGNS][:1]
        if not found:
            raise FailureError(
                failures_pb2.REASON_KEY_NOT_ACTIVE,
                "The adapter has no key that signs in this context.",
            )
        return found


def _differ(first: types_pb2.PublicKey, second: types_pb2.PublicKey) -> bool:
    """Whether two keys take different inputs of one message; mu depends on the public key."""
    rows = [ALGORITHMS.get(key.algorithm) for key in (first, second)]
    upstream = [row.upstream if row is not None else None for row in rows]
    return upstream[0] != upstream[1] or upstream[0] == algorithms_pb2.UPSTREAM_MU


def _input_of(key: types_pb2.PublicKey) -> KeyInput:
    """How this key takes a message. Raises FailureError INTERNAL."""
    row = ALGORITHMS.get(key.algorithm)
    try:
        if row is None:
            raise ValueError("not an algorithm of the table")
        return KeyInput(key.kid, hashing.hasher(row) or hashing.mu_hasher(key.spki))
    except ValueError:
        raise FailureError(
            failures_pb2.REASON_INTERNAL, "The adapter's key is no key of its algorithm."
        ) from None


Fetch = Callable[[signing_pb2.GetPublicKeysRequest], Awaitable[signing_pb2.GetPublicKeysResponse]]


class PublicKeys(FetchCache[Known]):
    """The cache, bounded by `most` contexts. For one event loop."""

    def __init__(self, fetch: Fetch, most: int, clock: Callable[[], float]) -> None:
        super().__init__(most, clock)
        self._fetch = fetch

    async def _load(self, scope: HandleScope) -> Known:
        request = signing_pb2.GetPublicKeysRequest(
            handle=scope.held.token,
            algorithm=scope.algorithm,
            context=scope.suffix,
            open_algorithm=not scope.algorithm,
        )
        return Known(await self._fetch(request), self._clock())
