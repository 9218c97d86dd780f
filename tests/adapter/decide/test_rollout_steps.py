"""What a rollout does next: no stage is skipped, whatever the clock, the figures and people do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from capsign_adapter.decide.rollout_steps import (
    JUDGED,
    bake_ms,
    due,
    is_overtaken,
    remaining_ms,
    version_event,
)
from capsign_adapter.model.lifecycle import (
    ROLLOUT,
    KeyEvent,
    PaceEvent,
    RolloutEvent,
    RolloutPace,
    RolloutStage,
)
from capsign_adapter.model.rollouts import Figures, Side, moved
from capsign_wire.failures import FailureError
from hypothesis import given
from hypothesis import strategies as st
from support.rollouts import ACTIVE, DEACTIVATED, NOW, PLAN, PRE, rollout, version, world

S = RolloutStage
HEALTHY = Figures(after=Side(signed=1000, verified=1000))
FAILING = Figures(after=Side(signed=1000, verified=900, verify_failed=100))
WAY = [
    (S.PUBLISH, 0),
    (S.PROPAGATE, 0),
    (S.CANARY, 0),
    (S.CANARY, 1),
    (S.CANARY, 2),
    (S.DUAL_SIGN, 0),
    (S.PROMOTE, 0),
    (S.RETIRE, 0),
    (S.DONE, 0),
]


def around(row, **changes):
    """The world of that row, if nothing else happens to its versions."""
    waits = row.stage in {S.PUBLISH, S.PROPAGATE}
    return world(version(2, PRE if waits else ACTIVE), version(1), **changes)


def at(stage, step=0, **changes):
    return rollout(stage, step=step, **changes)


def test_the_whole_way_if_all_is_well():
    row, way = rollout(), []
    while True:
        way.append((row.stage, row.step))
        if row.is_final:
            break
        row = replace(row, figures=HEALTHY)
        now = row.stage_since_ms + bake_ms(row)
        if bake_ms(row):
            assert due(row, around(row), now - 1) is None
        row = moved(row, due(row, around(row), now), now)
    assert way == WAY


@given(st.lists(st.tuples(st.integers(-7_200_000, 7_200_000), st.sampled_from("hfdn"))))
def test_no_stage_is_skipped_whatever_clock_and_figures_do(turns):
    """The clock of whoever looks jumps back and forth by hours; figures are healthy, failing or
    too few.
    """
    figures = {"h": HEALTHY, "f": FAILING, "d": Figures(), "n": Figures(after=Side(signed=99))}
    row, seen = rollout(), [(S.PUBLISH, 0)]
    now = NOW
    for jump, kind in turns:
        now = max(1, now + jump)
        row = replace(row, figures=figures[kind])
        event = due(row, around(row), now)
        if event is None:
            continue
        if isinstance(event, RolloutEvent) and event is not RolloutEvent.ROLL_BACK:
            assert max(0, now - row.stage_since_ms) >= bake_ms(row)
            assert row.stage not in JUDGED or kind == "h"
        row = moved(row, event, now)
        if (row.stage, row.step) != seen[-1]:
            seen.append((row.stage, row.step))
    if row.stage is S.ROLLED_BACK:
        assert seen.pop()[0] is S.ROLLED_BACK
    assert seen == WAY[: len(seen)]


@given(st.integers(0, 10_000_000))
def test_a_clock_that_steps_back_makes_a_step_wait(back):
    row = at(S.CANARY, figures=HEALTHY)
    assert due(row, around(row), NOW - back) is None
    assert remaining_ms(row, around(row), NOW - back) == 60_000


@pytest.mark.parametrize("stage", sorted(JUDGED))
@pytest.mark.parametrize("pace", list(RolloutPace))
def test_a_breached_trigger_rolls_back_at_once_and_in_a_pause_too(stage, pace):
    row = at(stage, figures=FAILING, pace=pace, paused_ms=NOW if pace > 1 else 0)
    assert due(row, around(row), NOW) is RolloutEvent.ROLL_BACK


@pytest.mark.parametrize("stage", [S.PUBLISH, S.PROPAGATE, S.RETIRE])
def test_figures_decide_nothing_where_nothing_new_signs_or_all_is_decided(stage):
    assert due(at(stage, figures=FAILING), around(at(stage)), NOW + 1) in {
        None,
        RolloutEvent.PUBLISHED,
    }


def test_too_few_samples_pause_at_the_end_of_the_bake_time_and_not_before():
    row = at(S.CANARY, figures=Figures(after=Side(signed=99)))
    assert due(row, around(row), NOW + 59_999) is None
    assert due(row, around(row), NOW + 60_000) is PaceEvent.DOUBT
    paused = moved(row, PaceEvent.DOUBT, NOW + 60_000)
    assert due(paused, around(paused), NOW + 10**9) is None
    resumed = moved(paused, PaceEvent.RESUME, NOW + 90_000)
    assert resumed.figures == row.figures
    assert due(resumed, around(resumed), NOW + 90_000) is None
    assert remaining_ms(resumed, around(resumed), NOW + 90_000) == 60_000


def test_a_canary_without_a_workload_does_not_wait():
    row = at(S.CANARY)
    assert due(row, around(row, in_cohort=0), NOW) is RolloutEvent.WIDEN
    assert due(row, around(row, in_cohort=1), NOW) is None


def test_the_time_of_a_pause_does_not_count():
    row = moved(at(S.PROPAGATE), PaceEvent.PAUSE, NOW + 100_000)
    assert due(row, around(row), NOW + 10**9) is None
    assert remaining_ms(row, around(row), NOW + 10**9) == 800_000
    row = moved(row, PaceEvent.RESUME, NOW + 10**9)
    assert due(row, around(row), NOW + 10**9 + 799_999) is None
    assert due(row, around(row), NOW + 10**9 + 800_000) is RolloutEvent.PROPAGATED


def test_a_version_is_published_with_the_first_step():
    row, hidden = rollout(), version(2, PRE, published_ms=0)
    assert due(row, world(hidden, version(1)), NOW) is RolloutEvent.PUBLISHED
    found = version_event(row, RolloutEvent.PUBLISHED, world(hidden, version(1)))
    assert found == (hidden, KeyEvent.PUBLISH)
    shown = world(version(2, PRE), version(1))
    assert version_event(row, RolloutEvent.PUBLISHED, shown) is None


def test_a_plan_without_dual_signing_goes_without():
    row = at(S.CANARY, step=2, figures=HEALTHY, plan=replace(PLAN, dual_sign_ms=0))
    assert due(row, around(row), NOW + 60_000) is RolloutEvent.PROMOTE


OVERTAKERS = [
    (S.PROPAGATE, (version(3), version(2, PRE), version(1))),
    (S.PROPAGATE, (version(2, DEACTIVATED), version(1))),
    (S.PROPAGATE, (version(2, PRE), version(1, DEACTIVATED))),
    (S.CANARY, (version(3), version(2), version(1))),
    (S.CANARY, (version(2, DEACTIVATED), version(1))),
    (S.DUAL_SIGN, (version(2), version(1, DEACTIVATED))),
    (S.PROMOTE, (version(2, DEACTIVATED), version(1))),
    (S.RETIRE, (version(3), version(2), version(1))),
    (S.PUBLISH, (version(1),)),
]


@pytest.mark.parametrize(("stage", "versions"), OVERTAKERS, ids=lambda value: str(value)[:20])
def test_another_act_on_its_versions_overtakes_it(stage, versions):
    row = at(stage, figures=HEALTHY)
    assert due(row, world(*versions), NOW) is RolloutEvent.OVERTAKE


def test_a_newer_version_that_only_waits_overtakes_nothing():
    assert not is_overtaken(at(S.CANARY), world(version(3, PRE), version(2), version(1)))
    assert not is_overtaken(at(S.PROMOTE), world(version(2), version(1, DEACTIVATED)))


ENDS = [RolloutEvent.ABORT, RolloutEvent.ROLL_BACK, RolloutEvent.OVERTAKE]


def test_versions_move_with_their_step():
    row = at(S.PROPAGATE)
    two, one = version(2), version(1)
    waiting = version(2, PRE)
    found = version_event(row, RolloutEvent.PROPAGATED, world(waiting, one))
    assert found == (waiting, KeyEvent.ACTIVATE)
    assert version_event(at(S.RETIRE), RolloutEvent.FINISH, world()) == (one, KeyEvent.DEACTIVATE)
    for event in ENDS:
        assert version_event(at(S.CANARY), event, world()) == (two, KeyEvent.DEACTIVATE)
        assert version_event(row, event, world(waiting, one)) is None
    assert version_event(at(S.CANARY), RolloutEvent.WIDEN, world()) is None
    assert version_event(at(S.CANARY), PaceEvent.PAUSE, world()) is None


@pytest.mark.parametrize("event", ENDS)
def test_the_last_version_that_signs_is_never_deactivated(event):
    """Somebody deactivated the old version meanwhile: taking the new one back too would leave the
    key without any.
    """
    assert version_event(at(S.CANARY), event, world(version(2), version(1, DEACTIVATED))) is None


def test_a_change_of_algorithm_alone_moves_no_version():
    row = at(S.CANARY, before=replace(rollout().before, version=2))
    for event in RolloutEvent:
        assert version_event(row, event, world()) is None


@pytest.mark.parametrize("stage", [stage for stage in S if ROLLOUT.is_final(stage)])
def test_what_has_ended_does_nothing(stage):
    assert due(at(stage, figures=FAILING), world(), NOW + 10**12) is None
    for event in RolloutEvent:
        with pytest.raises(FailureError):
            moved(at(stage), event, NOW)


def test_each_change_counts():
    row = rollout()
    for event in (RolloutEvent.PUBLISHED, PaceEvent.PAUSE, PaceEvent.RESUME):
        after = moved(row, event, NOW)
        assert after.revision == row.revision + 1
        row = after
