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
    """Something withdrawn. `kind` is capsign.adapter.v1.RevocationKind; `by` the SPIFFE ID of who
    did it, empty where an older release wrote it; `lifted_epoch` is 0 while it stands.
    """

    epoch: int
    kind: int
    target: str
    at_ms: int
    by: str = ""
    lifted_epoch: int = 0
    erases: bool = False
    """The tenant that it names was erased: this is never lifted."""


@dataclass(frozen=True, slots=True)
class Laggard:
    """A replica that has not yet drained an older epoch. After `lease_ms` it cannot release
    anything of it any more.
    """

    replica_id: bytes
    lease_ms: int
