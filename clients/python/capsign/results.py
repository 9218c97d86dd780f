"""The values that calls return. They are immutable and independent of any connection."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

from capsign.errors import Refused


@dataclass(frozen=True, slots=True)
class SignedBy:
    """The key that made a signature; see `Signature`."""

    kid: str
    key_version: int
    custody: str
    policy_digest: bytes
    context_digest: bytes
    attestation: bytes


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature. `bytes(signature)` gives `value`.

    `value` is what the algorithm defines: DER for ES256 and ES384, raw bytes otherwise (see
    `jose`). `intent_id` (UUIDv7) fetches the same bytes again; `leaf_index` is its place in the
    evidence log.
    """

    value: bytes
    algorithm: str
    intent_id: bytes
    leaf_index: int
    signed_by: SignedBy = field(repr=False)
    others: tuple[Signature, ...] = field(default=(), repr=False)
    """Signatures of the same call by further key versions, for verifiers that know only those."""

    @property
    def signatures(self) -> tuple[Signature, ...]:
        """All signatures of this call, this one first: one by each key version that signs now."""
        return (self, *self.others)

    @property
    def kid(self) -> str:
        """Key id: the RFC 7638 thumbprint of the public key."""
        return self.signed_by.kid

    @property
    def key_version(self) -> int:
        """Version of the key, counted from 1."""
        return self.signed_by.key_version

    @property
    def custody(self) -> str:
        """Where the private key was: "adapter-memory", "hsm-derived" or "hsm-direct"."""
        return self.signed_by.custody

    @property
    def policy_digest(self) -> bytes:
        """SHA-256 of the policy that allowed it, 32 bytes."""
        return self.signed_by.policy_digest

    @property
    def context_digest(self) -> bytes:
        """SHA-256 of the encoded context, 32 bytes."""
        return self.signed_by.context_digest

    @property
    def attestation(self) -> bytes:
        """DSSE envelope (JSON) that vouches for the subkey; empty unless a transcript was given."""
        return self.signed_by.attestation

    @property
    def jose(self) -> bytes:
        """The signature as JOSE and COSE write it: R || S of fixed length for ES256 (64 bytes) and
        ES384 (96), RFC 7518 section 3.4; the same as `value` for every other algorithm. Raises
        ValueError if the algorithm is not known.
        """
        if not self.algorithm:
            raise ValueError(
                "the algorithm of this signature is not known: give resolve(algorithm=...)"
            )
        from capsign.jose import COORDINATE_BYTES, raw_ecdsa

        size = COORDINATE_BYTES.get(self.algorithm)
        return self.value if size is None else raw_ecdsa(self.value, size)

    def __bytes__(self) -> bytes:
        return self.value


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key as verifiers need it. `state` is a NIST SP 800-57 state such as "active" or
    "deactivated".
    """

    kid: str
    algorithm: str
    spki: bytes
    """SubjectPublicKeyInfo, DER; empty for HS256, which has no public half."""
    version: int
    state: str
    context_digest: bytes
    attestation: bytes
    activated_at: datetime | None
    visible_since: datetime | None = None
    """When verifiers were first shown it; None if the adapter does not say."""

    @property
    def pem(self) -> str:
        """The SubjectPublicKeyInfo as PEM (RFC 7468 section 13). Raises ValueError for HS256."""
        if not self.spki:
            raise ValueError(f"{self.algorithm} has no public key")
        text = base64.b64encode(self.spki).decode()
        lines = [text[start : start + 64] for start in range(0, len(text), 64)]
        return "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""])


@dataclass(frozen=True, slots=True)
class KeySet:
    """The public keys of a context as a JWK Set (RFC 7517): the same bytes as at the adapter's
    listener for verifiers.
    """

    body: bytes
    max_age: int
    """How long it may be kept, seconds."""
    sequence: int
    """Never falls: of two sets of one context the one with the larger sequence is the newer."""
    etag: str

    @property
    def keys(self) -> list[dict[str, Any]]:
        """The JWKs."""
        found: list[dict[str, Any]] = json.loads(self.body)["keys"]
        return found


@dataclass(frozen=True, slots=True)
class ProtocolRule:
    """A protocol that a handle allows, with its roles and versions. A single value is pinned: calls
    may leave it out.
    """

    protocol: str
    roles: tuple[str, ...]
    versions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyHandle:
    """What this socket may sign. `id` means nothing on another socket or after a restart of the
    agent.
    """

    id: str
    grant: str
    purpose: str
    algorithms: tuple[str, ...]
    protocols: tuple[ProtocolRule, ...]
    transcript: str
    """"forbidden", "allowed" or "required"."""
    expires_at: datetime | None
    rate_per_second: int
    """0: no limit stated."""
    withdrawn: str = ""
    """Why it was withdrawn; empty: it is good."""


@dataclass(frozen=True, slots=True)
class Done:
    """The intent was carried out; this is the stored signature."""

    signature: Signature


@dataclass(frozen=True, slots=True)
class WasRefused:
    """The intent was refused: it did not and will not happen."""

    error: Refused


@dataclass(frozen=True, slots=True)
class Never:
    """The intent did not happen and now never will: a late copy of the call is refused."""


Resolution: TypeAlias = Done | WasRefused | Never
