"""The control state: the revocation epoch, what was revoked, and the replicas that it concerns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Control:
    """The control row, as one read saw it."""

    revocation_epoch: int
    intent_watermark_ms: int
    tree_size: int


@dataclass(frozen=True, slots=True)
class Revocation:
    """Something withdrawn. `kind` is capsign.adapter.v1.RevocationKind."""

    epoch: int
    kind: int
    target: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Laggard:
    """A replica that has not yet said that nothing of an older epoch is left in it. After
    `lease_ms` that cannot matter.
    """

    replica_id: bytes
    lease_ms: int
