"""Entries of the evidence log: one for each decision, canonical, bounded, and without anything a
caller may choose freely (I9).

An entry holds identities and names that policy knows, enumerations, counters, and commitments (HMAC
with the tenant's pepper). It never holds a message or a digest of one. `docs/formats.md` gives
every byte; `leaf_reader.py` reads entries back.

What all items of a group share is encoded and checked once, by `SigningLeaf.prepare`; an item then
costs a concatenation.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from capsign_wire.algorithms import ALGORITHMS, CUSTODY_NAMES
from capsign_wire.failures import REASONS
from capsign_wire.types.v1 import failures_pb2

VERSION = 1
"""First byte of every entry."""

MAX_ENTRY_LEN = 1024
"""No entry is longer, in bytes; the longest possible one has 862."""

HASH_LEN = 32
INTENT_LEN = 16
SERIAL_LEN = 16
BOOT_LEN = 16
POD_LEN = 16
"""Bytes of a pod's uid, which is a UUID (RFC 9562)."""
MAX_ID_LEN = 255
"""Longest SPIFFE ID and longest target of an administrative act, bytes."""
MAX_NAME_LEN = 64

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
SPIFFE_ID = re.compile(r"spiffe://[a-z0-9._-]+(/[A-Za-z0-9._-]+)+", re.ASCII)
_TARGET = re.compile(rf"\*|{NAME.pattern}(/{NAME.pattern}){{0,3}}|{SPIFFE_ID.pattern}", re.ASCII)
"""Everything, a name, tenant/key, tenant/key/version, a serial or digest in hexadecimal, or a
SPIFFE ID; before any of the former a word that says what kind it is.
"""


class LeafError(ValueError):
    """A field does not fit the entry format, or bytes are not a canonical entry. It names the
    field, never its value.
    """


class Kind(IntEnum):
    """What an entry records: its second byte. Numbers are never reused."""

    SIGNED = 1
    """A signature was made."""
    REFUSED = 2
    """A request under a verified handle was refused."""
    ADMIN = 3
    """Somebody with a role changed something."""
    AGENT_BATCH = 4
    """A batch of an agent's own records was taken."""
    NEVER = 5
    """An intent that had not happened was closed: it never will."""
    REFUSED_UNBOUND = 6
    """A request was refused before any handle of it could be verified."""
    IDENTITY_ISSUED = 7
    """A certificate was issued to a pod."""
    IDENTITY_REFUSED = 8
    """A certificate was asked for and refused."""
    SIGNED_TWICE = 9
    """One call was answered with two signatures, each under its own key version."""
    ROLLOUT_STEP = 11
    """A rollout began, went on, paused or ended; `rollout_leaf` has the bytes."""
    VERIFICATIONS_REPORTED = 13
    """Somebody reported how signatures verified elsewhere; `rollout_leaf` has the bytes."""
    PROPOSAL = 10
    """Something that needs two people was proposed, or its proposal moved on."""
    DRIFT = 12
    """What is expected was found to differ, or does not differ any more; `drift_leaf` has the
    bytes.
    """
    INCIDENT = 14
    """Records do not add up, or do again; `incident_leaf` has the bytes."""
    RETIRED = 15
    """Leaves were moved from the store to cold files; `retired_leaf` has the bytes."""


class Act(IntEnum):
    """Administrative acts. Numbers are never reused; 10 and up are 10 +
    capsign.adapter.v1.RevocationKind.
    """

    KEY_CREATED = 1
    KEY_ACTIVATED = 2
    KEY_SUSPENDED = 3
    KEY_DEACTIVATED = 4
    KEY_COMPROMISED = 5
    KEY_DESTROYED = 6
    KEY_RESUMED = 7
    KEY_PUBLISHED = 8
    HANDLE_REVOKED = 11
    GRANT_REVOKED = 12
    WORKLOAD_REVOKED = 13
    KEY_REVOKED = 14
    TENANT_REVOKED = 15
    EVERYTHING_REVOKED = 16
    KEY_VERSION_REVOKED = 17
    POLICY_APPLIED = 20
    LOG_OPENED = 21
    POLICY_PROPOSED = 22
    POLICY_FILE_DIFFERS = 23
    """The file of a replica is another document than the version in force. Not written any more:
    it is drift of the kind POLICY_FILE.
    """
    POLICY_ENDED = 24
    """A version that was proposed does not come into force."""
    AUTHORITY_PREPARED = 30
    AUTHORITY_ACTIVATED = 31
    AUTHORITY_RETIRED = 32
    KEY_GONE = 35
    """The token was shown to hold nothing of a destroyed version any more."""
    KEY_MOVE_REFUSED = 36
    """Somebody with the role asked for a move that the table does not have."""
    ROLLOUT_STARTED = 50
    ROLLOUT_PROPAGATES = 51
    ROLLOUT_CANARY = 52
    ROLLOUT_WIDENED = 53
    ROLLOUT_SIGNS_TWICE = 54
    ROLLOUT_PROMOTED = 55
    ROLLOUT_RETIRES = 56
    ROLLOUT_DONE = 57
    ROLLOUT_PAUSED = 58
    ROLLOUT_DOUBTED = 59
    ROLLOUT_RESUMED = 60
    ROLLOUT_ABORTED = 61
    ROLLOUT_ROLLED_BACK = 62
    ROLLOUT_OVERTAKEN = 63
    ROLLOUT_MOVE_REFUSED = 64
    """The same of a rollout."""
    PROPOSAL_MOVE_REFUSED = 65
    """The same of a proposal."""
    PROPOSED = 40
    APPROVED = 41
    REJECTED = 42
    PROPOSAL_EXPIRED = 43
    CALLED_OFF = 44
    BROKE_GLASS = 45
    REVOCATION_LIFTED = 46
    GLASS_ACKNOWLEDGED = 47
    PROPOSAL_EXECUTED = 48
    PROPOSAL_OVERTAKEN = 49
    DRIFT_FOUND = 70
    DRIFT_GONE = 71
    UNKNOWN_OBJECT = 72
    """A difference was found: an object in the token that nothing accounts for."""
    INCIDENT_CLOSED = 73
    """Somebody looked into an incident that does not end by itself, and closed it."""
    SIGNATURE_REPORTED = 74
    """Somebody handed in a signature that no entry is about."""
    COMMITMENTS_TOLD = 90
    """Somebody was told the commitments of a message of a tenant."""
    TENANT_ERASED = 91
    PEPPER_GONE = 92
    """The token was shown to hold no pepper of an erased tenant any more."""


class ProposedAct(IntEnum):
    """What a proposal is about: the numbers of capsign.adapter.v1.ProposalAct, never reused."""

    POLICY = 1
    KEY_DESTROY = 2
    REVOCATION_LIFT = 3
    TENANT_ERASE = 4


class GlassReason(IntEnum):
    """Why one person acted alone: the numbers of capsign.adapter.v1.GlassReason, never reused."""

    NONE = 0
    """The glass is whole."""
    ATTACK = 1
    OUTAGE = 2
    MISTAKE = 3
    DRILL = 4


PROPOSAL_ACTS = frozenset(
    {
        Act.PROPOSED,
        Act.APPROVED,
        Act.REJECTED,
        Act.PROPOSAL_EXPIRED,
        Act.CALLED_OFF,
        Act.BROKE_GLASS,
        Act.GLASS_ACKNOWLEDGED,
        Act.PROPOSAL_EXECUTED,
        Act.PROPOSAL_OVERTAKEN,
    }
)
"""What happens to a proposal: an entry of kind PROPOSAL has one of these acts."""


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
                _reason(reason),
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


def refused_unbound(
    time_ms: int,
    policy_digest: bytes,
    workload: str,
    intent_id: bytes,
    reason: failures_pb2.Reason.ValueType,
) -> bytes:
    """The entry of a refusal where no handle could be verified; `intent_id` is empty if the refusal
    is not about one intent.
    """
    return b"".join(
        (
            head(Kind.REFUSED_UNBOUND, time_ms, policy_digest),
            identity("workload", workload),
            optional("intent_id", intent_id, INTENT_LEN),
            _reason(reason),
        )
    )


def admin(
    time_ms: int, policy_digest: bytes, act: Act, actor: str, target: str, epoch: int
) -> bytes:
    """The entry of an administrative act by `actor` (SPIFFE ID) on `target`; `epoch` is the
    revocation epoch it led to, or 0.
    """
    return b"".join(
        (
            head(Kind.ADMIN, time_ms, policy_digest),
            unsigned("act", Act(act), 2),
            identity("actor", actor),
            _target(target),
            unsigned("epoch", epoch, 8),
        )
    )


@dataclass(frozen=True, slots=True)
class Proposed:
    """What is the same in every entry about one proposal.

    `proposal_id` is a UUIDv7 of 16 bytes, `target` in the form of an administrative act's, `digest`
    SHA-256 of what exactly will happen (docs/formats.md, "Proposal digest").
    """

    proposal_id: bytes
    act: ProposedAct
    target: str
    digest: bytes

    def encode(self) -> bytes:
        """These fields as they stand in an entry. Raises LeafError."""
        return b"".join(
            (
                fixed("proposal_id", self.proposal_id, INTENT_LEN),
                unsigned("proposed_act", ProposedAct(self.act), 2),
                _target(self.target),
                fixed("digest", self.digest, HASH_LEN),
            )
        )


def proposal(
    time_ms: int,
    policy_digest: bytes,
    act: Act,
    actor: str,
    what: Proposed,
    reason: GlassReason,
    epoch: int,
) -> bytes:
    """The entry of a proposal that was made or moved on by `actor` (SPIFFE ID); `epoch` is the
    revocation epoch that it was done at.
    """
    if act not in PROPOSAL_ACTS:
        raise LeafError("act is none of a proposal")
    return b"".join(
        (
            head(Kind.PROPOSAL, time_ms, policy_digest),
            unsigned("act", act, 2),
            identity("actor", actor),
            what.encode(),
            unsigned("reason", GlassReason(reason), 1),
            unsigned("epoch", epoch, 8),
        )
    )


def agent_batch(
    time_ms: int,
    policy_digest: bytes,
    workload: str,
    boot_id: bytes,
    first_sequence: int,
    last_sequence: int,
    batch_hash: bytes,
    *,
    closes: bool,
) -> bytes:
    """The entry of a batch of an agent's records, `first_sequence` to `last_sequence` of this boot
    without a gap.

    `batch_hash` is SHA-256 of the batch as the agent serialised it. `closes` says that its last
    record is the close record.
    """
    if not 1 <= first_sequence <= last_sequence:
        raise LeafError("sequence numbers count up from 1")
    return b"".join(
        (
            head(Kind.AGENT_BATCH, time_ms, policy_digest),
            identity("workload", workload),
            fixed("boot_id", boot_id, BOOT_LEN),
            unsigned("first_sequence", first_sequence, 8),
            unsigned("last_sequence", last_sequence, 8),
            fixed("batch_hash", batch_hash, HASH_LEN),
            bytes((closes,)),
        )
    )


def identity_issued(
    time_ms: int,
    policy_digest: bytes,
    workload: str,
    pod_uid: bytes,
    key_hash: bytes,
    authority: int,
    not_after_ms: int,
) -> bytes:
    """The entry of a certificate. `key_hash` is SHA-256 of its SubjectPublicKeyInfo, `authority`
    the version that signed it.
    """
    return b"".join(
        (
            head(Kind.IDENTITY_ISSUED, time_ms, policy_digest),
            identity("workload", workload),
            fixed("pod_uid", pod_uid, POD_LEN),
            fixed("key_hash", key_hash, HASH_LEN),
            unsigned("authority", authority, 4),
            unsigned("not_after_ms", not_after_ms, 8),
        )
    )


def identity_refused(
    time_ms: int,
    policy_digest: bytes,
    workload: str,
    pod_uid: bytes,
    key_hash: bytes,
    reason: failures_pb2.Reason.ValueType,
) -> bytes:
    """The entry of a certificate that was refused. What had not been proven by then is empty.

    `workload` is stated only if policy names it, so that callers cannot write names of their own
    into the log (I9).
    """
    return b"".join(
        (
            head(Kind.IDENTITY_REFUSED, time_ms, policy_digest),
            identity("workload", workload) if workload else b"\x00",
            optional("pod_uid", pod_uid, POD_LEN),
            optional("key_hash", key_hash, HASH_LEN),
            _reason(reason),
        )
    )


def head(kind: Kind, time_ms: int, policy_digest: bytes) -> bytes:
    """Returns the first 42 bytes of an entry, which all kinds share."""
    return struct.pack(">BBQ", VERSION, kind, time_ms) + fixed(
        "policy_digest", policy_digest, HASH_LEN
    )


def _reason(reason: int) -> bytes:
    if reason not in REASONS:
        raise LeafError("reason is not in the table")
    return reason.to_bytes(2, "big")


def unsigned(field: str, value: int, length: int) -> bytes:
    """A big-endian number of `length` bytes."""
    if not 0 <= value < 1 << (8 * length):
        raise LeafError(f"{field} is out of range")
    return value.to_bytes(length, "big")


def fixed(field: str, value: bytes, length: int) -> bytes:
    """Bytes of a fixed length, as they are."""
    if len(value) != length:
        raise LeafError(f"{field} has not {length} bytes")
    return value


def optional(field: str, value: bytes, length: int) -> bytes:
    """Bytes of a fixed length or none, with the length before them as 8 bits."""
    return bytes((length,)) + fixed(field, value, length) if value else b"\x00"


def name(field: str, value: str) -> bytes:
    """A policy name of 1 to 64 bytes, with its length before it as 8 bits."""
    if not NAME.fullmatch(value):
        raise LeafError(f"{field} is not a policy name")
    return short_text(value)


def identity(field: str, value: str) -> bytes:
    """A SPIFFE ID of at most 255 bytes, with its length before it as 8 bits."""
    if len(value) > MAX_ID_LEN or not SPIFFE_ID.fullmatch(value):
        raise LeafError(f"{field} is not a SPIFFE ID of at most {MAX_ID_LEN} bytes")
    return short_text(value)


def _target(value: str) -> bytes:
    """What an administrative act is on, with its length before it as 8 bits."""
    if not _TARGET.fullmatch(value) or len(value) > MAX_ID_LEN:
        raise LeafError("target is not a name, tenant/key, tenant/key/version, SPIFFE ID or '*'")
    return short_text(value)


def short_text(value: str) -> bytes:
    """ASCII of at most 255 bytes, with its length before it as 8 bits."""
    data = value.encode("ascii")
    return bytes((len(data),)) + data
