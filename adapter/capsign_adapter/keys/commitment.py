"""Fingerprints of intents: they bind an intent id to one request without revealing what was
signed.

HMAC-SHA256 under a key that comes from the tenant's pepper inside the token. Once the pepper is
destroyed, nobody can tell which message a fingerprint belongs to, not even by trying messages.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from capsign_adapter.keys import labels
from capsign_adapter.keys.cache import BoundedCache
from capsign_adapter.keys.result_seal import ResultSeal
from capsign_adapter.keys.subkeys import token_failure
from capsign_adapter.token.interface import Token, TokenError

DOMAIN = b"capsign1 fingerprint"
KEY_DOMAIN = b"capsign1 commitment"
RESULT_DOMAIN = b"capsign1 stored result"
FINGERPRINT_LEN = 32


def _field(value: bytes) -> bytes:
    return struct.pack(">H", len(value)) + value


class GroupFingerprint:
    """The HMAC state over what the items of one group share. As secret as the commitment key
    itself.
    """

    __slots__ = ("_begun",)

    def __init__(self, key: bytes, prefix: bytes) -> None:
        self._begun = HMAC(key, SHA256())
        self._begun.update(prefix)

    def of(self, data: bytes) -> bytes:
        """Returns the fingerprint of one item, 32 bytes; `data` is what came upstream: message,
        digest or mu.
        """
        return self.of_hash(hashlib.sha256(data).digest())

    def of_each(self, inputs: Iterable[bytes]) -> list[bytes]:
        """The fingerprints of many items."""
        begun, sha256, made = self._begun.copy, hashlib.sha256, []
        for data in inputs:
            mac = begun()
            mac.update(sha256(data).digest())
            made.append(mac.finalize())
        return made

    def of_hash(self, input_hash: bytes) -> bytes:
        """The same from SHA-256 of what came upstream."""
        mac = self._begun.copy()
        mac.update(input_hash)
        return mac.finalize()


@dataclass(frozen=True, slots=True, repr=False)
class CommitmentKey:
    """The key of one tenant's fingerprints."""

    key: bytes
    results: ResultSeal = field(init=False, compare=False)
    """Seals the signatures that the ledger keeps, under a key that is made of this one."""

    def __post_init__(self) -> None:
        seal = ResultSeal(hmac.digest(self.key, RESULT_DOMAIN, "sha256"))
        object.__setattr__(self, "results", seal)

    def group(
        self,
        grant: str,
        algorithm: str,
        protocol: str,
        role: str,
        protocol_version: str,
        transcript: bytes,
    ) -> GroupFingerprint:
        """Returns the state for the items of one group.

        Protocol, role and version are those that apply once the handle has filled in pinned values,
        so that omitting and stating a pinned value are the same request. None of the values changes
        when a handle is renewed or a key is rotated.
        """
        texts = (grant, algorithm, protocol, role, protocol_version)
        head = b"".join(_field(text.encode()) for text in texts)
        return GroupFingerprint(
            self.key,
            _field(DOMAIN) + head + _field(transcript) + struct.pack(">H", FINGERPRINT_LEN),
        )

    def fingerprint(
        self,
        grant: str,
        algorithm: str,
        protocol: str,
        role: str,
        protocol_version: str,
        transcript: bytes,
        data: bytes,
    ) -> bytes:
        """Returns the fingerprint of a single item, 32 bytes."""
        return self.group(grant, algorithm, protocol, role, protocol_version, transcript).of(data)


class CommitmentKeys:
    """Commitment keys by tenant, cached for a bounded time. `clock_ms` is monotonic, in
    milliseconds. Safe for any thread.
    """

    def __init__(
        self,
        token: Token,
        clock_ms: Callable[[], int],
        max_tenants: int = 1024,
        max_age_ms: int = 300_000,
    ) -> None:
        self._token = token
        self._clock_ms = clock_ms
        self._keys: BoundedCache[str, CommitmentKey] = BoundedCache(max_tenants, max_age_ms)

    def for_tenant(self, tenant: str) -> CommitmentKey:
        """Returns the key of a tenant; one token call if it is not in the cache. Raises
        FailureError TOKEN_UNAVAILABLE, also when the pepper was destroyed.
        """
        held = self._keys.get(tenant, self._clock_ms())
        if held is None:
            generation = self._keys.generation
            try:
                held = CommitmentKey(self._token.hmac(labels.pepper(tenant), KEY_DOMAIN))
            except TokenError as error:
                raise token_failure(error) from error
            self._keys.put(tenant, held, self._clock_ms(), generation)
        return held

    def sweep(self) -> int:
        """Drop keys that were held too long."""
        return self._keys.sweep(self._clock_ms())

    def clear(self) -> None:
        """Drop all keys. Call it when a pepper is destroyed."""
        self._keys.clear()
