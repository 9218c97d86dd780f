"""What a rollout does next. Pure: of the row, its versions, its figures and the time, so that every
replica decides the same, and the store lets one of them do it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from capsign_wire.key_states import SIGNS
from capsign_wire.types.v1 import signing_pb2

from capsign_adapter.decide.rollout_analysis import (
    NOBODY,
    Trigger,
    Verdict,
    measures,
    verdict_of,
)
from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_adapter.model.lifecycle import (
    KeyEvent,
    PaceEvent,
    RolloutEvent,
    RolloutPace,
    RolloutStage,
)
from capsign_adapter.model.rollouts import RolloutRow, Side

JUDGED = frozenset({RolloutStage.CANARY, RolloutStage.DUAL_SIGN, RolloutStage.PROMOTE})
"""Stages whose figures decide."""

BOTH_NEEDED = frozenset({RolloutStage.CANARY, RolloutStage.DUAL_SIGN})
"""Stages in which both versions sign."""

NOT_YET = frozenset({RolloutStage.PUBLISH, RolloutStage.PROPAGATE})
"""Stages in which nothing signs with what is new."""


@dataclass(frozen=True, slots=True)
class World:
    """What a rollout depends on beside its row."""

    versions: Sequence[KeyVersionRow]
    """Of its key, newest first."""
    in_cohort: int
    """How many of policy's workloads the step has."""
    workloads: int = 2
    """How many may use the key, and so report."""
    missing: int = 0
    """How many readers of public keys are expected to fetch the new version and have not."""

    def version(self, number: int) -> KeyVersionRow | None:
        """Returns the version of that number."""
        return next((row for row in self.versions if row.version == number), None)

    def signs(self, number: int) -> bool:
        """Whether that version may sign."""
        row = self.version(number)
        return row is not None and row.state in SIGNS

    @property
    def newest_signing(self) -> int:
        """The newest version that may sign; 0: none."""
        return next((row.version for row in self.versions if row.state in SIGNS), 0)


def due(row: RolloutRow, world: World, now_ms: int) -> RolloutEvent | PaceEvent | None:
    """Returns what happens now without a person; None: nothing.

    A breached trigger counts in a pause too: what is paused still signs. Where few reporters alone
    say that it is breached, the others have until the end of the step to say otherwise. A clock
    that was put back makes a step wait, and never skips one.
    """
    if row.is_final:
        return None
    if is_overtaken(row, world):
        return RolloutEvent.OVERTAKE
    verdict, rest = Verdict.HEALTHY, remaining_ms(row, world, now_ms)
    if row.stage in JUDGED:
        alone = not rest or world.workloads == 1
        verdict = verdict_now(row, believes_one=alone)
    if verdict is Verdict.FAILED:
        return RolloutEvent.ROLL_BACK
    if row.pace is not RolloutPace.RUNNING or rest:
        return None
    if is_waiting(row, world):
        return None
    doubtful = verdict is Verdict.INCONCLUSIVE and world.in_cohort > 0
    return PaceEvent.DOUBT if doubtful else following(row)


def verdict_now(row: RolloutRow, *, believes_one: bool = False) -> Verdict:
    """Returns what the figures of the row's step say. Ask only in a stage that is JUDGED."""
    side, triggers = row.figures.after, row.plan.triggers
    return verdict_of(side, triggers, _control(row), believes_one=believes_one)


def measures_now(row: RolloutRow) -> tuple[Trigger, ...]:
    """Returns the triggers of the row's step with what was counted."""
    return measures(row.figures.after, row.plan.triggers, _control(row))


def _control(row: RolloutRow) -> Side:
    """Returns the figures of those who have nothing new. In a canary alone: afterwards the same
    calls are on both sides, and a verifier may be content with one signature of two.
    """
    return row.figures.before if row.stage is RolloutStage.CANARY else NOBODY


def following(row: RolloutRow) -> RolloutEvent:
    """Returns the event that leads to the next step. Ask only of one that is not final."""
    if row.stage is RolloutStage.CANARY and row.step + 1 < len(row.plan.canary):
        return RolloutEvent.WIDEN
    if row.stage is RolloutStage.CANARY and row.plan.dual_sign_ms:
        return RolloutEvent.DUAL_SIGN
    if row.stage in BOTH_NEEDED:
        return RolloutEvent.PROMOTE
    if row.stage is RolloutStage.PUBLISH:
        return RolloutEvent.PUBLISHED
    if row.stage is RolloutStage.PROPAGATE:
        return RolloutEvent.PROPAGATED
    return RolloutEvent.RETIRE if row.stage is RolloutStage.PROMOTE else RolloutEvent.FINISH


def bake_ms(row: RolloutRow) -> int:
    """Returns how long its step lasts at least, milliseconds."""
    plan = row.plan
    if row.stage is RolloutStage.PROPAGATE:
        return plan.propagation_ms
    if row.stage is RolloutStage.CANARY:
        return plan.canary[row.step].bake_ms
    if row.stage is RolloutStage.DUAL_SIGN:
        return plan.dual_sign_ms
    if row.stage is RolloutStage.PROMOTE:
        return plan.promote_ms
    return plan.retire_ms if row.stage is RolloutStage.RETIRE else 0


def remaining_ms(row: RolloutRow, world: World, now_ms: int) -> int:
    """Returns how long its step still lasts, milliseconds. A canary that has no workload need not
    wait.
    """
    if row.stage is RolloutStage.CANARY and not world.in_cohort:
        return 0
    counted = row.paused_ms or now_ms
    return max(0, bake_ms(row) - max(0, counted - row.stage_since_ms))


def is_waiting(row: RolloutRow, world: World) -> bool:
    """Whether it waits for those who verify to fetch the new version. A person may let it go on
    once the propagation window is over.
    """
    waits = row.plan.readiness_required and row.stage is RolloutStage.PROPAGATE
    return waits and world.missing > 0


def is_open_to_people(row: RolloutRow, world: World, now_ms: int) -> bool:
    """Whether a person may promote it: not while verifiers have time to fetch public keys. Once
    that time is over it goes on by itself, or waits for those who have not.
    """
    if is_waiting(row, world):
        return not remaining_ms(row, world, now_ms)
    return row.stage not in NOT_YET


def is_overtaken(row: RolloutRow, world: World) -> bool:
    """Whether something else happened to its versions: a newer one signs, the new one does not any
    more, or the old one does not while it is needed.
    """
    newest = max(row.before.version, row.after.version)
    if world.newest_signing > newest:
        return True
    if row.stage in NOT_YET:
        return not world.signs(row.before.version) or not _may_begin(row, world)
    if not world.signs(row.after.version):
        return True
    return row.stage in BOTH_NEEDED and not world.signs(row.before.version)


def version_event(
    row: RolloutRow, event: RolloutEvent | PaceEvent, world: World
) -> tuple[KeyVersionRow, KeyEvent] | None:
    """Returns the move of a key version that belongs to an event of the rollout, or None.

    What did sign and shall not any more is deactivated: it verifies. Never the last that signs.
    """
    before, after = world.version(row.before.version), world.version(row.after.version)
    if not row.is_version_change or before is None or after is None:
        return None
    if event is RolloutEvent.PUBLISHED and not after.published_ms:
        return after, KeyEvent.PUBLISH
    if event is RolloutEvent.PROPAGATED and after.state not in SIGNS:
        return after, KeyEvent.ACTIVATE
    if event is RolloutEvent.FINISH and before.state in SIGNS and after.state in SIGNS:
        return before, KeyEvent.DEACTIVATE
    ends = {RolloutEvent.ABORT, RolloutEvent.ROLL_BACK, RolloutEvent.OVERTAKE}
    others = any(each.state in SIGNS for each in world.versions if each.version != after.version)
    if event in ends and after.state in SIGNS and others:
        return after, KeyEvent.DEACTIVATE
    return None


def _may_begin(row: RolloutRow, world: World) -> bool:
    """Whether the new version can still be activated, or signs already."""
    version = world.version(row.after.version)
    waiting = {signing_pb2.KEY_STATE_PRE_ACTIVATION, *SIGNS}
    return version is not None and version.state in waiting
