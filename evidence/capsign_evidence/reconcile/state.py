"""What reconciliation remembers between two entries: plain data, so that it can be written down and
taken up again, also by another process.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from capsign_evidence.reconcile.incidents import Incident

MAX_SIGNED = 8192
"""Most intents of one workload that are reported and signed and have no outcome yet."""
MAX_CLAIMS = 4096
"""Most certificate keys of one workload that are remembered."""
MAX_CUT = 65_536
"""Most lives that are remembered after they fell silent for good."""
MAX_LIVES_OF_KEY = 64
"""Most lives that say one certificate key is theirs."""
MAX_LIVES = 16_384
"""Most lives of one workload that have not ended."""
MAX_RECENT = 16
"""Batches of a life that are told apart from others with the same sequence numbers."""
MAX_ENDED = 262_144
"""Most lives that are remembered after their end."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of what grows with what others do."""

    open: int = 65_536
    """Most signatures of one workload that are not reported yet, and as many intents without a
    signature.
    """
    missing: int = 4096
    """Most signatures under one certificate key that are remembered by name after they are an
    incident.
    """


@dataclass(slots=True)
class Life:
    """One life ("boot") of an agent."""

    workload: str
    last_ms: int
    """When it was heard of last."""
    through: int = 0
    """The last sequence number that is in the log."""
    last_hash: bytes = b""
    recent: dict[int, bytes] = field(default_factory=dict)
    """Of the last batches, by last sequence number: the first 8 bytes of their hash."""
    horizon: int = 0
    """The number of leaves that the log had, at least, when its last record was written: whatever
    was signed before that, it has reported or never will.
    """
    left_through: int = 0
    """What a later life says it left; 0: nobody has said so."""
    silent: bool = False
    speaks: bool = False
    """Whether it is an agent of a release that speaks every 15 minutes and tells of the life before
    it: older ones may be silent, and killed, without anybody saying so.
    """


@dataclass(slots=True)
class Group:
    """Signatures under one certificate key that are not reported: by intent, leaf index and time.
    They only move from `fresh` to `late` to `missing`, oldest first.
    """

    fresh: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    late: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    missing: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    lost: int = 0
    """How many more are missing than are remembered."""
    untold: bool = False
    """Whether some are missing and there was no room for the incident."""


@dataclass(slots=True)
class Workload:
    """What is open of one workload."""

    groups: dict[bytes, Group] = field(default_factory=dict)
    where: dict[bytes, bytes] = field(default_factory=dict)
    """Under which certificate key an intent in `groups` is, the oldest first."""
    asked: dict[bytes, int] = field(default_factory=dict)
    """Intents that an agent reports and no leaf is about, and when that was."""
    signed: dict[bytes, int] = field(default_factory=dict)
    """Intents that are reported and whose leaf is known, and have no outcome yet."""
    claims: dict[bytes, list[bytes]] = field(default_factory=dict)
    """By certificate key: the lives that say it is theirs."""
    claimed_ms: dict[bytes, int] = field(default_factory=dict)
    """When a life said so last, the oldest first."""
    unjudged: int = 0
    """How many signatures were forgotten before they could be judged, and no agent has told of
    since.
    """


@dataclass(slots=True)
class State:
    """All of it. `position` is the index of the next entry."""

    position: int = 0
    began: int = 0
    """The first entry that was read: of what was before it, lives and batches are not known."""
    now_ms: int = 0
    """Time that has passed, of which long holes count little (MAX_STEP_MS). What falls due, does by
    this one.
    """
    wall_ms: int = 0
    """Milliseconds since 1970, as the last entry has it."""
    behind: int = 0
    """How many times in a row less than this was heard, by more than MAX_STEP_MS."""
    ahead_ms: int = 0
    """How much time was counted for a clock that was ahead, and has not passed yet."""
    swept_ms: int = 0
    workloads: dict[str, Workload] = field(default_factory=dict)
    lives: dict[bytes, Life] = field(default_factory=dict)
    """Those that have not ended, by when they were heard of last."""
    ended: dict[bytes, int] = field(default_factory=dict)
    """Lives that have ended, and their last sequence number."""
    cut: dict[bytes, Life] = field(default_factory=dict)
    """Lives that ended without saying so."""
    waiting: list[Incident] = field(default_factory=list)
    """Incidents that nothing will show again and that found no room, the oldest first."""


def bound(table: dict[Any, Any], most: int) -> None:
    """Forget the oldest of a table that has too many."""
    while len(table) > most:
        del table[next(iter(table))]
