"""Entries of the evidence log: one for each decision, canonical, bounded, and without anything a
caller may choose freely (I9).

An entry holds identities and names that policy knows, enumerations, counters, and commitments (HMAC
with the tenant's pepper). It never holds a message or a digest of one. `docs/formats.md` gives
every byte; `leaf_reader.py` reads entries back.

Here are those of people, agents and certificates; `signing_leaf.py` has those of signatures.
"""

from __future__ import annotations

from dataclasses import dataclass

from capsign_wire.types.v1 import failures_pb2

from capsign_evidence.leaf_fields import (
    BOOT_LEN,
    HASH_LEN,
    INTENT_LEN,
    POD_LEN,
    LeafError,
    fixed,
    head,
    identity,
    optional,
    reason_number,
    target_name,
    unsigned,
)
from capsign_evidence.leaf_kinds import PROPOSAL_ACTS, Act, GlassReason, Kind, ProposedAct


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
            reason_number(reason),
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
            target_name(target),
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
                target_name(self.target),
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
            reason_number(reason),
        )
    )
