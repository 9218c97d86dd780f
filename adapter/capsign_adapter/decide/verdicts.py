"""Handles that were verified, kept by the SHA-256 of their token so that a signature costs no verification.

Only what a token *is* is remembered. Who presents it, whether its life is over and whether it was revoked are asked each time.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from threading import Lock

from capsign_adapter.decide.biscuits import Verified, Verifier

CAPACITY = 4096
"""Most handles kept; about 12 KiB each. The least recently used goes first."""


class Verdicts:
    """A bounded cache in front of a verifier. Safe to share between threads. A token that fails is never remembered."""

    def __init__(self, verifier: Verifier, capacity: int = CAPACITY) -> None:
        self._verifier = verifier
        self._capacity = capacity
        self._kept: OrderedDict[bytes, Verified] = OrderedDict()
        self._lock = Lock()
        self._generation = 0

    def verify(self, token: bytes, workload: str, cert_key_hash: bytes, now_ms: int, skew_ms: int) -> Verified:
        """As `Verifier.verify`."""
        name = hashlib.sha256(token).digest()
        with self._lock:
            found = self._kept.get(name)
            if found is not None:
                self._kept.move_to_end(name)
            generation = self._generation
        if found is not None:
            return self._presented(name, found, workload, cert_key_hash, now_ms, skew_ms)
        verified = self._verifier.verify(token, workload, cert_key_hash, now_ms, skew_ms)
        with self._lock:
            # What was verified before a clear() must not come back after it.
            if generation == self._generation:
                self._kept[name] = verified
                while len(self._kept) > self._capacity:
                    self._kept.popitem(last=False)
        return verified

    def clear(self) -> None:
        """Forget everything: the revocation epoch, the policy or the mint key changed."""
        with self._lock:
            self._kept.clear()
            self._generation += 1

    def __len__(self) -> int:
        return len(self._kept)

    def _presented(self, name: bytes, found: Verified, workload: str, key_hash: bytes, now_ms: int, skew_ms: int) -> Verified:
        if now_ms >= found.expires_ms:
            with self._lock:
                self._kept.pop(name, None)
        found.check_presented(workload, key_hash, now_ms, skew_ms)
        return found
