"""Entries about rollouts: each of their steps, with the figures on which it was decided, and what
people report of verifications.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol

from capsign_wire.algorithms import ALGORITHMS

from capsign_evidence import leaf_fields
from capsign_evidence.leaf_fields import HASH_LEN, LeafError
from capsign_evidence.leaf_kinds import Act, Kind

ROLLOUT_LEN = 16
"""Bytes of a rollout's id, a UUIDv7 (RFC 9562)."""

STEP_ACTS = frozenset(range(Act.ROLLOUT_STARTED, Act.ROLLOUT_OVERTAKEN + 1))


@dataclass(frozen=True, slots=True)
class SideFigures:
    """What was counted of one side of a rollout: calls and verifications, and the 99th percentile
    of the `timed` ones in milliseconds.
    """

    signed: int = 0
    refused: int = 0
    unanswered: int = 0
    verified: int = 0
    verify_failed: int = 0
    timed: int = 0
    p99_ms: int = 0

    def encode(self) -> bytes:
        return b"".join(
            leaf_fields.unsigned(field.name, getattr(self, field.name), 8) for field in fields(self)
        )


@dataclass(frozen=True, slots=True)
class RolloutStep:
    """A rollout went on, paused or ended.

    `stage`, `step` and `pace` are those after it, as capsign.adapter.v1 numbers them; the figures
    and the verdict are those of the step before, over the entries from `first_leaf` up to, and
    without, `through_leaf`. `actor` is empty where the rollout did it by itself. A verdict of 0:
    nothing was judged. `revision` counts the steps of the rollout from 1.
    """

    time_ms: int
    policy_digest: bytes
    act: Act
    rollout: bytes
    revision: int
    actor: str
    tenant: str
    key: str
    before_version: int
    before_algorithm: int
    after_version: int
    after_algorithm: int
    stage: int
    step: int
    pace: int
    verdict: int
    epoch: int
    first_leaf: int
    through_leaf: int
    after: SideFigures
    before: SideFigures

    kind = Kind.ROLLOUT_STEP

    def encode(self) -> bytes:
        """The entry. Raises LeafError."""
        if self.act not in STEP_ACTS:
            raise LeafError("act is none of a rollout")
        if not {self.before_algorithm, self.after_algorithm} <= {0, *ALGORITHMS}:
            raise LeafError("algorithm is not in the table")
        return b"".join(
            (
                leaf_fields.head(self.kind, self.time_ms, self.policy_digest),
                leaf_fields.unsigned("act", self.act, 2),
                leaf_fields.fixed("rollout", self.rollout, ROLLOUT_LEN),
                leaf_fields.unsigned("revision", self.revision, 4),
                leaf_fields.identity("actor", self.actor) if self.actor else b"\x00",
                leaf_fields.name("tenant", self.tenant),
                leaf_fields.name("key", self.key),
                leaf_fields.unsigned("before_version", self.before_version, 4),
                bytes((self.before_algorithm,)),
                leaf_fields.unsigned("after_version", self.after_version, 4),
                bytes((self.after_algorithm,)),
                leaf_fields.unsigned("stage", self.stage, 1),
                leaf_fields.unsigned("step", self.step, 1),
                leaf_fields.unsigned("pace", self.pace, 1),
                leaf_fields.unsigned("verdict", self.verdict, 1),
                leaf_fields.unsigned("epoch", self.epoch, 8),
                leaf_fields.unsigned("first_leaf", self.first_leaf, 8),
                leaf_fields.unsigned("through_leaf", self.through_leaf, 8),
                self.after.encode(),
                self.before.encode(),
            )
        )


@dataclass(frozen=True, slots=True)
class VerificationsReported:
    """Somebody with a role reported how signatures of a key version verified elsewhere."""

    time_ms: int
    policy_digest: bytes
    actor: str
    tenant: str
    key: str
    key_version: int
    verified_algorithm: int
    verified: int
    failed: int

    kind = Kind.VERIFICATIONS_REPORTED

    def encode(self) -> bytes:
        """The entry. Raises LeafError."""
        if self.verified_algorithm not in ALGORITHMS:
            raise LeafError("algorithm is not in the table")
        return b"".join(
            (
                leaf_fields.head(self.kind, self.time_ms, self.policy_digest),
                leaf_fields.identity("actor", self.actor),
                leaf_fields.name("tenant", self.tenant),
                leaf_fields.name("key", self.key),
                leaf_fields.unsigned("key_version", self.key_version, 4),
                bytes((self.verified_algorithm,)),
                leaf_fields.unsigned("verified", self.verified, 4),
                leaf_fields.unsigned("failed", self.failed, 4),
            )
        )


class Cursor(Protocol):
    """Takes fields off the front of an entry."""

    def fixed(self, length: int) -> bytes: ...
    def unsigned(self, length: int) -> int: ...
    def text(self) -> str: ...
    def act(self) -> Act: ...


def read_step(cursor: Cursor, time_ms: int) -> RolloutStep:
    """The rest of an entry of kind ROLLOUT_STEP. Arguments are evaluated in order."""
    return RolloutStep(
        time_ms,
        policy_digest=cursor.fixed(HASH_LEN),
        act=cursor.act(),
        rollout=cursor.fixed(ROLLOUT_LEN),
        revision=cursor.unsigned(4),
        actor=cursor.text(),
        tenant=cursor.text(),
        key=cursor.text(),
        before_version=cursor.unsigned(4),
        before_algorithm=cursor.unsigned(1),
        after_version=cursor.unsigned(4),
        after_algorithm=cursor.unsigned(1),
        stage=cursor.unsigned(1),
        step=cursor.unsigned(1),
        pace=cursor.unsigned(1),
        verdict=cursor.unsigned(1),
        epoch=cursor.unsigned(8),
        first_leaf=cursor.unsigned(8),
        through_leaf=cursor.unsigned(8),
        after=_side(cursor),
        before=_side(cursor),
    )


def read_report(cursor: Cursor, time_ms: int) -> VerificationsReported:
    """The rest of an entry of kind VERIFICATIONS_REPORTED."""
    return VerificationsReported(
        time_ms,
        policy_digest=cursor.fixed(HASH_LEN),
        actor=cursor.text(),
        tenant=cursor.text(),
        key=cursor.text(),
        key_version=cursor.unsigned(4),
        verified_algorithm=cursor.unsigned(1),
        verified=cursor.unsigned(4),
        failed=cursor.unsigned(4),
    )


def _side(cursor: Cursor) -> SideFigures:
    return SideFigures(*(cursor.unsigned(8) for _ in fields(SideFigures)))
