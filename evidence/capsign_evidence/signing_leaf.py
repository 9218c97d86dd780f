"""Entries of signatures, and of calls that were refused or never happened. What all items of a
group share is encoded and checked once, by `SigningLeaf.prepare`; an item then costs a
concatenation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from capsign_wire.algorithms import ALGORITHMS, CUSTODY_NAMES
from capsign_wire.types.v1 import failures_pb2

from capsign_evidence.leaf_fields import (
    HASH_LEN,
    INTENT_LEN,
    SERIAL_LEN,
    VERSION,
    LeafError,
    fixed,
    identity,
    name,
    optional,
    reason_number,
    unsigned,
)
from capsign_evidence.leaf_kinds import Kind


@dataclass(frozen=True, slots=True)
class SigningLeaf:
    """The fields that all entries of one group have in common.

    `workload` is the SPIFFE ID of the peer, `cert_key_hash` SHA-256 of its certificate's
    SubjectPublicKeyInfo. `algorithm` and `custody` are numbers of the enums. A refusal or a
    resolution may come before some of it is known: `key_version`, `algorithm` and `custody` are
    then 0, and `cert_key_hash`, `context_digest` empty. `caller` is the name of the agent's socket
    or empty.
    """

    workload: str
    tenant: str
    key: str
    purpose: str
    grant: str
    handle_serial: bytes
    policy_digest: bytes
    cert_key_hash: bytes = b""
    key_version: int = 0
    algorithm: int = 0
    custody: int = 0
    context_digest: bytes = b""
    caller: str = ""

    def encode(self) -> bytes:
        """The shared part of an entry: everything between the time and the item's own fields.
        Raises LeafError.
        """
        if self.algorithm and self.algorithm not in ALGORITHMS:
            raise LeafError("algorithm is not in the table")
        if self.custody and self.custody not in CUSTODY_NAMES:
            raise LeafError("custody is not in the table")
        return b"".join(
            (
                fixed("policy_digest", self.policy_digest, HASH_LEN),
                identity("workload", self.workload),
                optional("cert_key_hash", self.cert_key_hash, HASH_LEN),
                name("tenant", self.tenant),
                name("key", self.key),
                unsigned("key_version", self.key_version, 4),
                name("purpose", self.purpose),
                bytes((self.algorithm, self.custody)),
                optional("context_digest", self.context_digest, HASH_LEN),
                name("grant", self.grant),
                fixed("handle_serial", self.handle_serial, SERIAL_LEN),
                name("caller", self.caller) if self.caller else b"\x00",
            )
        )

    def prepare(self) -> PreparedLeaf:
        """Check and encode the shared part once. Raises LeafError."""
        complete = bool(
            self.key_version
            and self.algorithm
            and self.custody
            and self.context_digest
            and self.cert_key_hash
        )
        return PreparedLeaf(self.encode(), complete)


_SIGNED = bytes((VERSION, Kind.SIGNED))
_SIGNED_TWICE = bytes((VERSION, Kind.SIGNED_TWICE))
_REFUSED = bytes((VERSION, Kind.REFUSED))
_NEVER = bytes((VERSION, Kind.NEVER))
_MALFORMED = "a signed entry has a complete group, a 16-byte intent id and hashes of 32 bytes"


@dataclass(frozen=True, slots=True)
class SecondKey:
    """What the second signature of a call was made with; all else it shares with the first. Fields
    as in SigningLeaf.
    """

    key_version: int
    algorithm: int
    custody: int
    context_digest: bytes

    def encode(self) -> bytes:
        """The encoded fields. Raises LeafError unless all are given."""
        if not self.key_version or self.algorithm not in ALGORITHMS:
            raise LeafError("a second signature has a key version and an algorithm of the table")
        if self.custody not in CUSTODY_NAMES:
            raise LeafError("custody is not in the table")
        return b"".join(
            (
                unsigned("key_version", self.key_version, 4),
                bytes((self.algorithm, self.custody)),
                fixed("context_digest", self.context_digest, HASH_LEN),
            )
        )


@dataclass(frozen=True, slots=True)
class PreparedLeaf:
    """The shared part of a group's entries, encoded. `complete`: no field is empty, which a
    signature requires.
    """

    shared: bytes
    complete: bool

    def signed(
        self, time_ms: int, intent_id: bytes, commitment: bytes, signature_hash: bytes
    ) -> bytes:
        """Returns the entry of a signature. `signature_hash` is SHA-256 of its bytes, which binds a
        receipt to them.
        """
        return self._signed(_SIGNED, time_ms, intent_id, commitment, signature_hash)

    def signed_each(
        self,
        time_ms: int,
        intent_ids: Sequence[bytes],
        commitments: Sequence[bytes],
        signature_hashes: Sequence[bytes],
    ) -> list[bytes]:
        """Returns `signed` of many items, which are checked and encoded in one go."""
        hashes = {*map(len, commitments), *map(len, signature_hashes)}
        if {*map(len, intent_ids)} != {INTENT_LEN} or hashes != {HASH_LEN} or not self.complete:
            raise LeafError(_MALFORMED)
        head = b"".join((_SIGNED, time_ms.to_bytes(8, "big"), self.shared))
        own = zip(intent_ids, commitments, signature_hashes, strict=True)
        return [b"".join((head, *parts)) for parts in own]

    def signed_twice(
        self,
        time_ms: int,
        intent_id: bytes,
        commitment: bytes,
        signature_hashes: Sequence[bytes],
        second: bytes,
    ) -> bytes:
        """Returns the entry of two signatures that answer one call. `second` is the encoded
        SecondKey; the hashes are those of the first and the second signature.
        """
        first_hash, second_hash = signature_hashes
        entry = self._signed(_SIGNED_TWICE, time_ms, intent_id, commitment, first_hash)
        return b"".join((entry, second, fixed("signature_hash", second_hash, HASH_LEN)))

    def _signed(
        self, head: bytes, time_ms: int, intent_id: bytes, commitment: bytes, signature_hash: bytes
    ) -> bytes:
        if (
            len(intent_id) != INTENT_LEN
            or len(commitment) != HASH_LEN
            or len(signature_hash) != HASH_LEN
            or not self.complete
        ):
            raise LeafError(_MALFORMED)
        return b"".join(
            (
                head,
                time_ms.to_bytes(8, "big"),
                self.shared,
                intent_id,
                commitment,
                signature_hash,
            )
        )

    def refused(
        self,
        time_ms: int,
        intent_id: bytes,
        commitment: bytes,
        reason: failures_pb2.Reason.ValueType,
    ) -> bytes:
        """Returns the entry of a refusal. `commitment` is empty if it was refused before one was
        made.
        """
        return b"".join(
            (
                _REFUSED,
                time_ms.to_bytes(8, "big"),
                self.shared,
                fixed("intent_id", intent_id, INTENT_LEN),
                optional("commitment", commitment, HASH_LEN),
                reason_number(reason),
            )
        )

    def never(self, time_ms: int, intent_id: bytes) -> bytes:
        """Returns the entry of an intent that was closed and never happened."""
        return b"".join(
            (
                _NEVER,
                time_ms.to_bytes(8, "big"),
                self.shared,
                fixed("intent_id", intent_id, INTENT_LEN),
            )
        )
