"""Cache of verified handles by the SHA-256 of their token, so that a signature costs no
verification.

It holds only what a token *is*: a handle of this mint, or none. Who presents it, whether it has
expired and whether it was revoked are checked each time. So no token, valid, forged, stolen or
expired, is verified again while it is in the cache.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import TypeVar

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide import cost
from capsign_adapter.decide.biscuits import Verified, Verifier

CAPACITY = 4096
"""Most handles kept, about 12 KiB each. The least recently used is dropped first."""

REFUSED_CAPACITY = 16_384
"""Most invalid tokens kept, about 400 bytes each."""

_FINAL = frozenset({failures_pb2.REASON_HANDLE_FORGED, failures_pb2.REASON_INPUT_TOO_LARGE})
"""Reasons that hold for a token for ever; others may be different next time."""

T = TypeVar("T")


def _free(_: int) -> None:
    """The charge of callers that are not charged."""


class HandleCache:
    """A bounded cache in front of a verifier. Safe for any thread."""

    def __init__(
        self, verifier: Verifier, capacity: int = CAPACITY, refused_capacity: int = REFUSED_CAPACITY
    ) -> None:
        self._verifier = verifier
        self._capacity = capacity
        self._refused_capacity = refused_capacity
        self._kept: OrderedDict[bytes, Verified] = OrderedDict()
        self._refused: OrderedDict[bytes, failures_pb2.Failure] = OrderedDict()
        self._lock = Lock()
        self._generation = 0

    def verify(
        self,
        token: bytes,
        workload: str,
        cert_key_hash: bytes,
        now_ms: int,
        skew_ms: int,
        charge: Callable[[int], None] = _free,
    ) -> Verified:
        """As `Verifier.verify`. `charge` gets the cost of a verification, microseconds, before it
        is done; what it raises is passed on.
        """
        name = hashlib.sha256(token).digest()
        with self._lock:
            found, refused = _used(self._kept, name), _used(self._refused, name)
            generation = self._generation
        if refused is not None:
            raise FailureError.from_item(refused)
        if found is None:
            charge(cost.verification(len(token)))
            found = self._read(name, token, generation)
        found.check_presented(workload, cert_key_hash, now_ms, skew_ms)
        return found

    def clear(self) -> None:
        """Drop everything: the revocation epoch, the policy or the mint key changed."""
        with self._lock:
            self._kept.clear()
            self._refused.clear()
            self._generation += 1

    def __len__(self) -> int:
        return len(self._kept)

    def _read(self, name: bytes, token: bytes, generation: int) -> Verified:
        try:
            verified = self._verifier.read(token)
        except FailureError as error:
            if error.reason in _FINAL:
                self._keep(self._refused, self._refused_capacity, name, error.to_item(), generation)
            raise
        self._keep(self._kept, self._capacity, name, verified, generation)
        return verified

    def _keep(
        self, kept: OrderedDict[bytes, T], capacity: int, name: bytes, verdict: T, generation: int
    ) -> None:
        with self._lock:
            # What was found before a clear() must not come back after it.
            if generation == self._generation:
                kept[name] = verdict
                while len(kept) > capacity:
                    kept.popitem(last=False)


def _used(kept: OrderedDict[bytes, T], name: bytes) -> T | None:
    found = kept.get(name)
    if found is not None:
        kept.move_to_end(name)
    return found
