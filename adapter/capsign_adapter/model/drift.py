"""What is expected beside what is found: objects of the token, reports of replicas, differences."""

from __future__ import annotations

from dataclasses import dataclass

from capsign_evidence.drift_leaf import DriftKind

LIVE_MS = 180_000
"""A replica that has not reported for so long counts as gone, milliseconds."""


@dataclass(frozen=True, slots=True, order=True)
class TokenObject:
    """An object in the token. `kind` is its class ("secret-key", "private-key", "public-key",
    "certificate", "data"), `attributes` those that the token told, by name.
    """

    kind: str
    label: str
    attributes: tuple[tuple[str, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class TokenContents:
    """What a token holds and offers, as two fresh sessions saw it."""

    objects: tuple[TokenObject, ...]
    mechanisms: frozenset[str]
    derives: bool
    """Whether its secrets derive inside, and so have the attribute for it."""


@dataclass(frozen=True, slots=True, order=True)
class Difference:
    """One difference. Kind, subject and aspect are its name; the rest is for people."""

    kind: DriftKind
    subject: str
    aspect: str
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class DriftRow:
    """A difference that is there now; `since_ms` is when it was found, `leaf_index` its entry."""

    difference: Difference
    since_ms: int
    leaf_index: int


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """What a replica says of itself. `settings` are those that all replicas must share, `own` the
    differences that it alone can see. Times are milliseconds since 1970, `policy_file` is SHA-256
    of its file in hexadecimal, or empty if it cannot be read.
    """

    replica: bytes
    started_ms: int
    seen_ms: int
    software: str
    policy_file: str
    settings: tuple[tuple[str, str], ...]
    own: tuple[Difference, ...] = ()

    @property
    def name(self) -> str:
        """As differences and people call it."""
        return f"replica/{self.replica.hex()[:12]}"

    def is_live(self, now_ms: int) -> bool:
        """Whether it was heard of lately."""
        return now_ms - self.seen_ms < LIVE_MS


@dataclass(frozen=True, slots=True)
class DriftState:
    """What the store knows of drift. `revision` counts the changes of the rows."""

    revision: int
    rows: tuple[DriftRow, ...]
    reports: tuple[ReplicaReport, ...]


@dataclass(frozen=True, slots=True)
class KeyUse:
    """How often a version of a key has signed, and when last, milliseconds since 1970."""

    tenant: str
    key: str
    version: int
    last_ms: int
    count: int
