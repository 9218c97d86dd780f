"""Rollouts: a key on its way from what it signs with to what it shall sign with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_adapter.model.lifecycle import (
    ROLLOUT,
    ROLLOUT_PACE,
    KeyEvent,
    PaceEvent,
    RolloutEvent,
    RolloutPace,
    RolloutStage,
    move,
)

LATENCY_BOUNDS_MS = (
    *(1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512, 724, 1024),
    *(1448, 2048, 2896, 4096, 5793, 8192, 11585, 16384, 23170, 32768),
)
"""Upper ends of the classes in which latencies are counted, milliseconds: powers of the square root
of two, rounded. What is above the last is counted in one class more.
"""

BUCKETS = 10_000
"""Workloads are spread over so many buckets; a cohort is those below a bound."""


@dataclass(frozen=True, slots=True)
class SignsWith:
    """A version, and an algorithm by its number; algorithm 0: whichever is asked for."""

    version: int
    algorithm: int = 0


@dataclass(frozen=True, slots=True)
class CanaryStep:
    """So many percent of the workloads, for at least so long."""

    percent: int
    bake_ms: int


@dataclass(frozen=True, slots=True)
class Triggers:
    """When a rollout is rolled back. Rates are parts in a million; a bound of 0 parts lets nothing
    pass; a `p99_ms` of 0 is no bound.
    """

    error_ppm: int
    verify_failure_ppm: int
    p99_ms: int
    min_samples: int
    """Fewer calls than this say nothing."""
    min_verifications: int
    """Fewer verifications than this say nothing."""
    verifications_required: bool = False
    """Whether too few verifications are inconclusive, or pass."""


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """Stages and triggers, as policy had them when the rollout began: milliseconds."""

    propagation_ms: int
    canary: tuple[CanaryStep, ...]
    dual_sign_ms: int
    """0: without this stage."""
    promote_ms: int
    retire_ms: int
    triggers: Triggers
    readiness_required: bool = False
    """Whether the canary waits for those who verify and have not fetched the new version."""


class Reports(NamedTuple):
    """All that one reporter said of a step, as it said it."""

    unanswered: int = 0
    timed: int = 0
    slow: int = 0
    """Of the timed ones, those above the trigger's bound."""
    verified: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Side:
    """What was counted of those who sign with one of the two. Of reports it has what they weigh."""

    signed: int = 0
    refused: int = 0
    """Refusals that a change of the key can cause."""
    unanswered: int = 0
    """Calls of which agents report no answer: unavailable or unknown."""
    verified: int = 0
    verify_failed: int = 0
    latencies: tuple[int, ...] = (0,) * (len(LATENCY_BOUNDS_MS) + 1)
    """How many calls took up to each of LATENCY_BOUNDS_MS, as agents report."""
    reporters: Mapping[int, Reports] = field(default_factory=dict)
    """Who reported what, by the bucket of the reporter's identity: at most BUCKETS of them."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What the log says of one step: of its entries from `first_leaf` up to, and without,
    `through_leaf`.
    """

    first_leaf: int = 0
    through_leaf: int = 0
    after: Side = Side()
    """Those who sign with what is new."""
    before: Side = Side()


@dataclass(frozen=True, slots=True)
class RolloutRow:
    """One rollout. `id` is a UUIDv7 of 16 bytes; `number` counts the rollouts of its key from 1.

    `revision` counts its changes from 1: who changes it names the one that he saw.
    `previous` is the rollout that this one takes back, or empty.
    """

    id: bytes
    tenant: str
    key: str
    before: SignsWith
    after: SignsWith
    plan: RolloutPlan
    started_by: str
    started_ms: int
    number: int = 0
    revision: int = 1
    stage: RolloutStage = ROLLOUT.initial
    step: int = 0
    """Which of the canary's steps."""
    pace: RolloutPace = ROLLOUT_PACE.initial
    stage_since_ms: int = 0
    """When this step began; the time of a pause does not count."""
    paused_ms: int = 0
    """Since when it does not go on by itself; 0: it does."""
    figures: Figures = field(default_factory=Figures)
    previous: bytes = b""

    @property
    def is_final(self) -> bool:
        """Whether it has ended."""
        return ROLLOUT.is_final(self.stage)

    @property
    def is_done(self) -> bool:
        """Whether it has reached its end."""
        return self.stage is RolloutStage.DONE

    @property
    def is_version_change(self) -> bool:
        """Whether it leads to another version."""
        return self.before.version != self.after.version


@dataclass(frozen=True, slots=True)
class RolloutStep:
    """A change of a rollout, as its history keeps it. `act` is the number of its leaf's act."""

    rollout: bytes
    revision: int
    act: int
    stage: RolloutStage
    step: int
    pace: RolloutPace
    actor: str
    """Who asked for it; empty: the rollout itself."""
    at_ms: int
    epoch: int
    leaf_index: int
    figures: Figures
    """What was known of the step before."""


class VersionMove(NamedTuple):
    """The move of a key version that belongs to a step."""

    row: KeyVersionRow
    event: KeyEvent
    leaf: Callable[[int], bytes]
    """The entry, given the epoch."""


class RolloutMove(NamedTuple):
    """A change of a rollout, ready to be written."""

    row: RolloutRow
    """As it was read."""
    event: RolloutEvent | PaceEvent
    act: int
    actor: str
    """Who asked for it; empty: the rollout itself."""
    leaf: Callable[[RolloutRow, int], bytes]
    """The entry, given the row after it and the epoch."""
    version: VersionMove | None = None


def moved(row: RolloutRow, event: RolloutEvent | PaceEvent, now_ms: int) -> RolloutRow:
    """The rollout after an event at `now_ms`. Its figures begin anew with each step; the store says
    at which leaf. Raises FailureError ILLEGAL_TRANSITION.
    """
    if isinstance(event, PaceEvent):
        return _paced(row, event, now_ms)
    stage = move(ROLLOUT, row.stage, event)
    return replace(
        row,
        stage=stage,
        step=row.step + 1 if event is RolloutEvent.WIDEN else 0,
        pace=ROLLOUT_PACE.initial,
        stage_since_ms=now_ms,
        paused_ms=0,
        revision=row.revision + 1,
        figures=Figures(),
    )


def _paced(row: RolloutRow, event: PaceEvent, now_ms: int) -> RolloutRow:
    """What a person paused has the rest of its time left; what was inconclusive begins its time
    anew, and keeps its figures.
    """
    pace = move(ROLLOUT_PACE, row.pace, event)
    if event is not PaceEvent.RESUME:
        return replace(row, pace=pace, paused_ms=max(now_ms, 1), revision=row.revision + 1)
    rest = max(0, now_ms - row.paused_ms)
    since = row.stage_since_ms + rest if row.pace is RolloutPace.HELD else now_ms
    return replace(row, pace=pace, paused_ms=0, stage_since_ms=since, revision=row.revision + 1)
