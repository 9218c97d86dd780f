"""Decodes log entries, and accepts only their canonical encoding: otherwise two different byte
strings could state the same fact.

A decoded entry is encoded again and must give the same bytes, so the writer of `leaf.py` is the
only definition of the format.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, TypeVar
from uuid import UUID

from capsign_wire.algorithms import ALGORITHMS, CUSTODY_NAMES
from capsign_wire.failures import REASONS
from capsign_wire.types.v1 import failures_pb2

from capsign_evidence import (
    drift_leaf,
    incident_leaf,
    leaf,
    retired_leaf,
    rollout_leaf,
)
from capsign_evidence.drift_leaf import Drifted, DriftKind
from capsign_evidence.incident_leaf import IncidentKind, IncidentLeaf, IncidentState
from capsign_evidence.leaf import Proposed
from capsign_evidence.leaf_fields import (
    BOOT_LEN,
    HASH_LEN,
    INTENT_LEN,
    MAX_ENTRY_LEN,
    POD_LEN,
    SERIAL_LEN,
    VERSION,
    LeafError,
)
from capsign_evidence.leaf_kinds import Act, GlassReason, Kind, ProposedAct
from capsign_evidence.retired_leaf import Retired
from capsign_evidence.rollout_leaf import RolloutStep, SideFigures, VerificationsReported
from capsign_evidence.signing_leaf import SecondKey, SigningLeaf

Member = TypeVar("Member", bound=IntEnum)


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature was made; `signature_hash` is SHA-256 of its bytes."""

    time_ms: int
    group: SigningLeaf
    intent_id: bytes
    commitment: bytes
    signature_hash: bytes

    kind = Kind.SIGNED

    def encode(self) -> bytes:
        return self.group.prepare().signed(
            self.time_ms, self.intent_id, self.commitment, self.signature_hash
        )


@dataclass(frozen=True, slots=True)
class SignedTwice:
    """One call was answered with two signatures: the first as in Signed, the second under its own
    key version. The hashes are SHA-256 of their bytes.
    """

    time_ms: int
    group: SigningLeaf
    intent_id: bytes
    commitment: bytes
    signature_hash: bytes
    second: SecondKey
    second_signature_hash: bytes

    kind = Kind.SIGNED_TWICE

    def encode(self) -> bytes:
        hashes = (self.signature_hash, self.second_signature_hash)
        return self.group.prepare().signed_twice(
            self.time_ms, self.intent_id, self.commitment, hashes, self.second.encode()
        )


@dataclass(frozen=True, slots=True)
class Refused:
    """A request under a verified handle was refused; `commitment` is empty if none was made."""

    time_ms: int
    group: SigningLeaf
    intent_id: bytes
    commitment: bytes
    reason: failures_pb2.Reason.ValueType

    kind = Kind.REFUSED

    def encode(self) -> bytes:
        return self.group.prepare().refused(
            self.time_ms, self.intent_id, self.commitment, self.reason
        )


@dataclass(frozen=True, slots=True)
class Never:
    """An intent was closed: it had not happened and never will."""

    time_ms: int
    group: SigningLeaf
    intent_id: bytes

    kind = Kind.NEVER

    def encode(self) -> bytes:
        return self.group.prepare().never(self.time_ms, self.intent_id)


@dataclass(frozen=True, slots=True)
class RefusedUnbound:
    """A request was refused before a handle was verified; `intent_id` may be empty."""

    time_ms: int
    policy_digest: bytes
    workload: str
    intent_id: bytes
    reason: failures_pb2.Reason.ValueType

    kind = Kind.REFUSED_UNBOUND

    def encode(self) -> bytes:
        return leaf.refused_unbound(
            self.time_ms, self.policy_digest, self.workload, self.intent_id, self.reason
        )


@dataclass(frozen=True, slots=True)
class Admin:
    """Somebody changed something."""

    time_ms: int
    policy_digest: bytes
    act: Act
    actor: str
    target: str
    epoch: int

    kind = Kind.ADMIN

    def encode(self) -> bytes:
        return leaf.admin(
            self.time_ms, self.policy_digest, self.act, self.actor, self.target, self.epoch
        )


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposal was made, or moved on. `reason` is NONE unless somebody acted alone."""

    time_ms: int
    policy_digest: bytes
    act: Act
    actor: str
    what: Proposed
    reason: GlassReason
    epoch: int

    kind = Kind.PROPOSAL

    def encode(self) -> bytes:
        return leaf.proposal(
            self.time_ms,
            self.policy_digest,
            self.act,
            self.actor,
            self.what,
            self.reason,
            self.epoch,
        )


@dataclass(frozen=True, slots=True)
class AgentBatch:
    """A batch of an agent's records was taken."""

    time_ms: int
    policy_digest: bytes
    workload: str
    boot_id: bytes
    first_sequence: int
    last_sequence: int
    batch_hash: bytes
    closes: bool

    kind = Kind.AGENT_BATCH

    def encode(self) -> bytes:
        return leaf.agent_batch(
            self.time_ms,
            self.policy_digest,
            self.workload,
            self.boot_id,
            self.first_sequence,
            self.last_sequence,
            self.batch_hash,
            closes=self.closes,
        )


@dataclass(frozen=True, slots=True)
class IdentityIssued:
    """A certificate was issued to a pod; `authority` is the version that signed it."""

    time_ms: int
    policy_digest: bytes
    workload: str
    pod_uid: bytes
    key_hash: bytes
    authority: int
    not_after_ms: int

    kind = Kind.IDENTITY_ISSUED

    def encode(self) -> bytes:
        return leaf.identity_issued(
            self.time_ms,
            self.policy_digest,
            self.workload,
            self.pod_uid,
            self.key_hash,
            self.authority,
            self.not_after_ms,
        )


@dataclass(frozen=True, slots=True)
class IdentityRefused:
    """A certificate was asked for and refused; `workload`, `pod_uid` and `key_hash` are empty where
    they were not known.
    """

    time_ms: int
    policy_digest: bytes
    workload: str
    pod_uid: bytes
    key_hash: bytes
    reason: failures_pb2.Reason.ValueType

    kind = Kind.IDENTITY_REFUSED

    def encode(self) -> bytes:
        return leaf.identity_refused(
            self.time_ms,
            self.policy_digest,
            self.workload,
            self.pod_uid,
            self.key_hash,
            self.reason,
        )


Entry = (
    Signed
    | SignedTwice
    | Refused
    | Never
    | RefusedUnbound
    | Admin
    | AgentBatch
    | IdentityIssued
    | IdentityRefused
    | RolloutStep
    | VerificationsReported
    | Proposal
    | Drifted
    | IncidentLeaf
    | Retired
)


def decode(entry: bytes) -> Entry:
    """Returns the decoded entry. Raises LeafError unless the bytes are exactly what `leaf.py`
    writes for it.

    Unknown acts, reasons and algorithms are errors too: a log must be read with a program at least
    as new as its writer.
    """
    if len(entry) > MAX_ENTRY_LEN:
        raise LeafError(f"an entry has at most {MAX_ENTRY_LEN} bytes, this has {len(entry)}")
    cursor = _Cursor(entry)
    version, kind = cursor.unsigned(1), cursor.unsigned(1)
    if version != VERSION:
        raise LeafError(f"entry version {version} is unknown; a newer program wrote it")
    reader = _READERS.get(kind)
    if reader is None:
        raise LeafError(f"entry kind {kind} is unknown")
    try:
        decoded = reader(cursor, cursor.unsigned(8))
    except UnicodeDecodeError:
        raise LeafError("a text field is not ASCII") from None
    if decoded.encode() != entry:
        raise LeafError("the entry is not in its canonical form")
    return decoded


_ALGORITHM_FIELDS = (
    "before_algorithm",
    "after_algorithm",
    "verified_algorithm",
    "second_algorithm",
)


def describe(entry: Entry) -> dict[str, Any]:
    """Returns the entry for people and JSON: bytes as hexadecimal, enumerations by name, empty
    fields left out.
    """
    plain: dict[str, Any] = {"kind": entry.kind.name.lower().replace("_", "-")}
    for field in fields(entry):
        value = getattr(entry, field.name)
        if isinstance(value, SigningLeaf):
            plain.update({part.name: getattr(value, part.name) for part in fields(value)})
        elif isinstance(value, SecondKey):
            plain |= {f"second_{part.name}": getattr(value, part.name) for part in fields(value)}
        elif isinstance(value, SideFigures):
            plain[field.name] = {part.name: getattr(value, part.name) for part in fields(value)}
        elif isinstance(value, Proposed):
            plain["proposal_id"] = str(UUID(bytes=value.proposal_id))
            plain["proposed"] = value.act.name.lower().replace("_", "-")
            plain["target"], plain["digest"] = value.target, value.digest
        elif isinstance(value, DriftKind | IncidentKind | IncidentState):
            plain[field.name] = value.name.lower().replace("_", "-")
        elif isinstance(value, GlassReason):
            plain["glass"] = value.name.lower() if value else ""
        else:
            plain[field.name] = value
    if "second_custody" in plain:
        plain["second_custody"] = CUSTODY_NAMES[plain["second_custody"]]
    for name in _ALGORITHM_FIELDS:
        if name in plain:
            plain[name] = ALGORITHMS[plain[name]].name if plain[name] else ""
    if "algorithm" in plain:
        plain["algorithm"] = ALGORITHMS[plain["algorithm"]].name if plain["algorithm"] else ""
        plain["custody"] = CUSTODY_NAMES.get(plain["custody"], "")
        plain["key_version"] = plain["key_version"] or ""
    if "reason" in plain:
        plain["reason"] = REASONS[plain["reason"]].name
    if "act" in plain:
        plain["act"] = Act(plain["act"]).name.lower().replace("_", "-")
    readable = {
        key: value.hex() if isinstance(value, bytes) else value for key, value in plain.items()
    }
    if readable.get("pod_uid"):
        readable["pod_uid"] = str(UUID(readable["pod_uid"]))  # as kubectl shows it
    return {key: value for key, value in readable.items() if value != ""}


class _Cursor:
    """Reads the fields of an entry in order. Bytes left over are detected when the entry is encoded
    again.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def fixed(self, length: int) -> bytes:
        taken = self._data[self._at : self._at + length]
        if len(taken) != length:
            raise LeafError("the entry ends within a field")
        self._at += length
        return taken

    def unsigned(self, length: int) -> int:
        return int.from_bytes(self.fixed(length), "big")

    def variable(self) -> bytes:
        return self.fixed(self.unsigned(1))

    def text(self) -> str:
        return self.variable().decode("ascii")

    def reason(self) -> failures_pb2.Reason.ValueType:
        return failures_pb2.Reason.ValueType(self.unsigned(2))

    def act(self) -> Act:
        number = self.unsigned(2)
        if number not in Act._value2member_map_:
            raise LeafError(f"administrative act {number} is unknown")
        return Act(number)

    def member(self, kind: type[Member], length: int) -> Member:
        """A number of `length` bytes that is one of an enumeration."""
        number = self.unsigned(length)
        if number not in kind._value2member_map_:
            raise LeafError(f"{kind.__name__} {number} is unknown; a newer program wrote it")
        return kind(number)

    def group(self) -> SigningLeaf:
        """The shared part, in the order in which `SigningLeaf.encode` writes it; keyword arguments
        are evaluated in order.
        """
        return SigningLeaf(
            policy_digest=self.fixed(HASH_LEN),
            workload=self.text(),
            cert_key_hash=self.variable(),
            tenant=self.text(),
            key=self.text(),
            key_version=self.unsigned(4),
            purpose=self.text(),
            algorithm=self.unsigned(1),
            custody=self.unsigned(1),
            context_digest=self.variable(),
            grant=self.text(),
            handle_serial=self.fixed(SERIAL_LEN),
            caller=self.text(),
        )


def _signed(cursor: _Cursor, time_ms: int) -> Entry:
    return Signed(
        time_ms,
        cursor.group(),
        cursor.fixed(INTENT_LEN),
        cursor.fixed(HASH_LEN),
        cursor.fixed(HASH_LEN),
    )


def _signed_twice(cursor: _Cursor, time_ms: int) -> Entry:
    return SignedTwice(
        time_ms,
        cursor.group(),
        cursor.fixed(INTENT_LEN),
        cursor.fixed(HASH_LEN),
        cursor.fixed(HASH_LEN),
        SecondKey(
            cursor.unsigned(4), cursor.unsigned(1), cursor.unsigned(1), cursor.fixed(HASH_LEN)
        ),
        cursor.fixed(HASH_LEN),
    )


def _refused(cursor: _Cursor, time_ms: int) -> Entry:
    return Refused(
        time_ms, cursor.group(), cursor.fixed(INTENT_LEN), cursor.variable(), cursor.reason()
    )


def _never(cursor: _Cursor, time_ms: int) -> Entry:
    return Never(time_ms, cursor.group(), cursor.fixed(INTENT_LEN))


def _refused_unbound(cursor: _Cursor, time_ms: int) -> Entry:
    return RefusedUnbound(
        time_ms, cursor.fixed(HASH_LEN), cursor.text(), cursor.variable(), cursor.reason()
    )


def _admin(cursor: _Cursor, time_ms: int) -> Entry:
    return Admin(
        time_ms,
        cursor.fixed(HASH_LEN),
        cursor.act(),
        cursor.text(),
        cursor.text(),
        cursor.unsigned(8),
    )


def _proposal(cursor: _Cursor, time_ms: int) -> Entry:
    return Proposal(
        time_ms,
        cursor.fixed(HASH_LEN),
        cursor.act(),
        cursor.text(),
        Proposed(
            cursor.fixed(INTENT_LEN),
            cursor.member(ProposedAct, 2),
            cursor.text(),
            cursor.fixed(HASH_LEN),
        ),
        cursor.member(GlassReason, 1),
        cursor.unsigned(8),
    )


def _agent_batch(cursor: _Cursor, time_ms: int) -> Entry:
    return AgentBatch(
        time_ms,
        cursor.fixed(HASH_LEN),
        cursor.text(),
        cursor.fixed(BOOT_LEN),
        cursor.unsigned(8),
        cursor.unsigned(8),
        cursor.fixed(HASH_LEN),
        bool(cursor.unsigned(1)),
    )


def _identity_issued(cursor: _Cursor, time_ms: int) -> Entry:
    return IdentityIssued(
        time_ms,
        cursor.fixed(HASH_LEN),
        cursor.text(),
        cursor.fixed(POD_LEN),
        cursor.fixed(HASH_LEN),
        cursor.unsigned(4),
        cursor.unsigned(8),
    )


def _identity_refused(cursor: _Cursor, time_ms: int) -> Entry:
    return IdentityRefused(
        time_ms,
        cursor.fixed(HASH_LEN),
        cursor.text(),
        cursor.variable(),
        cursor.variable(),
        cursor.reason(),
    )


_READERS: dict[int, Callable[[_Cursor, int], Entry]] = {
    Kind.SIGNED: _signed,
    Kind.SIGNED_TWICE: _signed_twice,
    Kind.REFUSED: _refused,
    Kind.NEVER: _never,
    Kind.REFUSED_UNBOUND: _refused_unbound,
    Kind.ADMIN: _admin,
    Kind.AGENT_BATCH: _agent_batch,
    Kind.IDENTITY_ISSUED: _identity_issued,
    Kind.IDENTITY_REFUSED: _identity_refused,
    Kind.ROLLOUT_STEP: rollout_leaf.read_step,
    Kind.VERIFICATIONS_REPORTED: rollout_leaf.read_report,
    Kind.PROPOSAL: _proposal,
    Kind.DRIFT: drift_leaf.read_drift,
    Kind.INCIDENT: incident_leaf.read_incident,
    Kind.RETIRED: retired_leaf.read_retired,
}
