"""When a verifier fetches its key set: decided on values, with the time as an argument."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from capsign.errors import Unavailable

if TYPE_CHECKING:
    from capsign.jwk import VerificationKey

Keys: TypeAlias = "Mapping[str, VerificationKey]"

Read: TypeAlias = Callable[[Any], Keys]
"""Reads the keys of a set by kid. Raises ValueError for what is no set."""

UNKNOWN_EVERY_S = 10.0
"""Seconds between fetches because of a key that is in no set: anybody can send any key id."""

RETRY_S = 1.0
"""Seconds between attempts when fetching fails and nothing says when to come again, and until an
older set than the one that is held is asked for anew.
"""

LONGEST_S = 86_400.0
"""Longest that a set is kept, seconds, whatever it says."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer: a set, or that the one which is held has not changed (`body` is None)."""

    body: bytes | None
    etag: str
    max_age: float
    """How long it may be kept from when it was asked for, seconds."""


class KeySetCache:
    """The set that is held. Times are of a monotonic clock, seconds."""

    def __init__(self, read: Read, stale: float) -> None:
        """`stale`: seconds beyond its age for which a set is used while it cannot be fetched."""
        self._read, self._stale = read, stale
        self._keys: Keys | None = None
        self._sequence = -1
        self._expires = self._usable = self._next_fetch = self._next_unknown = 0.0
        self._failure: Unavailable | None = None
        self.etag = ""

    def wants_fetch(self, now: float) -> bool:
        """Whether to fetch before a key is looked up."""
        return now >= self._expires and now >= self._next_fetch

    def wants_unknown(self, kid: str, now: float) -> bool:
        """Whether to fetch once more because this key is not in the set. Counts as done."""
        if (
            self._keys is None
            or kid in self._keys
            or now < max(self._next_unknown, self._next_fetch)
        ):
            return False
        self._next_unknown = now + UNKNOWN_EVERY_S
        return True

    def fetched(self, told: Fetched, asked: float, now: float) -> None:
        """Keep an answer to what was asked at `asked`. A set that is older than the one that is
        held is not taken. Raises Unavailable for what is no set.
        """
        if told.body is None and self._keys is None:
            raise _unusable("The answer says that nothing has changed, and nothing is held.")
        taken = told.body is None or self._take(told.body)
        self._failure, self._next_fetch = None, now
        self._next_unknown = max(self._next_unknown, now + RETRY_S)
        if taken:
            self.etag = told.etag
            self._expires = asked + min(told.max_age, LONGEST_S)
        else:
            self._expires = max(self._expires, now + RETRY_S)
        # Whoever fetched it may use it once, also if it may be kept for no time.
        self._usable = max(self._expires, now + RETRY_S) + self._stale

    def failed(self, error: Unavailable, now: float) -> None:
        """Note that fetching failed, and when to try again."""
        self._failure, self._next_fetch = error, now + max(RETRY_S, error.retry_after)

    def key(self, kid: str, now: float) -> VerificationKey | None:
        """The key of this name in the set. Raises Unavailable if there is no set, or it is too old
        to be used.
        """
        if self._keys is None or now >= self._usable:
            raise self._failure or _unusable("There is no key set that may still be used.")
        return self._keys.get(kid)

    def _take(self, body: bytes) -> bool:
        """Whether the set is not older than the one that is held; then it is held from now on."""
        try:
            members: Any = json.loads(body)
            keys = self._read(members)
            sequence = int(members.get("capsign_sequence", 0))
        except (ValueError, TypeError, RecursionError):
            raise _unusable("The answer is no JWK Set.") from None
        if sequence < self._sequence:
            return False
        self._keys, self._sequence = keys, sequence
        return True


def _unusable(detail: str) -> Unavailable:
    return Unavailable("UPSTREAM_UNREACHABLE", detail, advice="Look at what serves the key set.")
