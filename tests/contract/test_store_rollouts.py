"""Rollouts in the store, on every engine."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from capsign_adapter.model.lifecycle import (
    ROLLOUT,
    KeyEvent,
    PaceEvent,
    RolloutEvent,
    RolloutPace,
    RolloutStage,
)
from capsign_adapter.model.rollouts import Figures, RolloutMove, Side, SignsWith, VersionMove
from capsign_adapter.store.errors import EpochMovedError
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from support.drafts import NOW, check_log, draft
from support.rollouts import ACTIVE, DEACTIVATED, ML_DSA, OLGA, PRE, rollout, version

S, E = RolloutStage, RolloutEvent
WAY = [
    E.PUBLISHED,
    E.PROPAGATED,
    E.WIDEN,
    E.WIDEN,
    E.DUAL_SIGN,
    E.PROMOTE,
    E.RETIRE,
    E.FINISH,
]


def leaf(row, epoch: int) -> bytes:
    return f"{row.number}.{row.revision} {row.stage.name} {row.step}@{epoch}".encode()


def start(store, row=None, overtakes=None):
    return store.start_rollout(row or rollout(), 50, leaf, NOW, overtakes)


def move_of(row, event, actor: str = "", version_move=None) -> RolloutMove:
    return RolloutMove(row, event, 51, actor, leaf, version_move)


def refused(reason: int, call, *arguments) -> None:
    with pytest.raises(FailureError) as caught:
        call(*arguments)
    assert caught.value.reason == reason, caught.value.detail


def test_a_life_from_step_to_step(store, second):
    before = store.control().revocation_epoch
    row, epoch = start(store)
    assert (row.number, row.revision, row.stage, epoch) == (1, 1, S.PUBLISH, before + 1)
    assert row.figures == Figures(1, 1)
    assert second.rollout("demo", "orders", 0) == row
    for count, event in enumerate(WAY, 1):
        row, epoch = (store, second)[count % 2].move_rollout(move_of(row, event), NOW + count)
        assert epoch == before + 1 + count == store.control().revocation_epoch
        assert store.rollout("demo", "orders", 1) == row
        assert row.figures == Figures(count + 1, count + 1)
    assert row.stage is S.DONE
    assert len(check_log(store)) == 9
    steps = store.rollout_steps(row.id)
    assert [step.revision for step in steps] == list(range(1, 10))
    assert [step.leaf_index for step in steps] == list(range(9))
    assert [step.epoch for step in steps] == list(range(before + 1, before + 10))
    assert [step.stage for step in steps][-2:] == [S.RETIRE, S.DONE]
    assert steps[0].actor == OLGA
    assert steps[1].actor == ""


@pytest.mark.parametrize("stage", list(S))
def test_i7_what_the_table_does_not_have_is_refused_and_changes_nothing(store, stage):
    row = at(store, stage)
    size = store.control().tree_size
    for event in set(E) - set(ROLLOUT.moves[stage]) | {PaceEvent.RESUME}:
        move = move_of(row, event)
        refused(reasons.REASON_ILLEGAL_TRANSITION, store.move_rollout, move, NOW + 100)
    assert store.rollout("demo", "orders", 0) == row
    assert store.control().tree_size == size


def at(store, stage):
    """A rollout that came there by legal moves."""
    row, _ = start(store)
    ends = {S.ABORTED: E.ABORT, S.ROLLED_BACK: E.ROLL_BACK, S.OVERTAKEN: E.OVERTAKE}
    for event in WAY:
        if row.stage is stage or (stage in ends and row.stage is S.CANARY):
            break
        row, _ = store.move_rollout(move_of(row, event), NOW)
    if stage in ends:
        row, _ = store.move_rollout(move_of(row, ends[stage]), NOW)
    assert row.stage is stage
    return row


def test_a_key_has_one_under_way(store, second):
    row, _ = start(store)
    other = rollout(id=bytes(16))
    refused(reasons.REASON_ROLLOUT_CONFLICT, start, second, other)
    elsewhere, _ = start(second, rollout(id=b"\x02" * 16, key="payments"))
    assert elsewhere.number == 1
    store.move_rollout(move_of(row, E.ABORT), NOW)
    again, _ = start(second, other)
    assert again.number == 2
    assert [(one.key, one.number) for one in store.rollouts("demo", "orders")] == [
        ("orders", 2),
        ("orders", 1),
    ]
    assert len(store.rollouts()) == len(store.rollouts("demo")) == 3
    assert store.rollouts("other") == []


def test_one_overtakes_the_other_in_one_transaction(store):
    row, epoch = start(store)
    other, later = start(store, rollout(id=bytes(16)), move_of(row, E.OVERTAKE, OLGA))
    assert (other.number, later) == (2, epoch + 2)
    assert store.rollout("demo", "orders", 1).stage is S.OVERTAKEN
    refused(
        reasons.REASON_ROLLOUT_CONFLICT,
        start,
        store,
        rollout(id=b"\x03" * 16),
        move_of(row, E.OVERTAKE),
    )
    assert store.rollout("demo", "orders", 0) == other


def test_who_saw_an_older_revision_is_refused(store, second):
    row, _ = start(store)
    after, _ = store.move_rollout(move_of(row, E.PUBLISHED), NOW)
    refused(reasons.REASON_ROLLOUT_CONFLICT, second.move_rollout, move_of(row, E.ABORT), NOW)
    assert second.rollout("demo", "orders", 0) == after


def test_of_replicas_that_take_a_step_at_once_one_does(store, second):
    row, _ = start(store)
    together, outcomes = threading.Barrier(2), []

    def step(one) -> None:
        together.wait()
        try:
            outcomes.append(one.move_rollout(move_of(row, E.PUBLISHED), NOW)[0].stage.name)
        except FailureError as error:
            outcomes.append(error.row.name)

    threads = [threading.Thread(target=step, args=(one,)) for one in (store, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["PROPAGATE", "ROLLOUT_CONFLICT"]
    assert len(check_log(store)) == 2


def test_a_batch_decided_before_a_step_is_decided_anew(store, second):
    row, epoch = start(store)
    second.move_rollout(move_of(row, E.PUBLISHED), NOW)
    with pytest.raises(EpochMovedError):
        store.commit(epoch, [draft()], NOW)


def test_the_key_version_moves_with_the_step_or_neither_does(store):
    one, two = version(1, published_ms=0), version(2, PRE, published_ms=0, activation_epoch=0)
    store.add_key_version(one, lambda epoch: b"one", NOW)
    store.add_key_version(two, lambda epoch: b"two", NOW)
    store.move_key_version(two, KeyEvent.PUBLISH, lambda epoch: b"shown", NOW)
    shown = next(each for each in store.key_versions() if each.version == 2)
    row, _ = start(store)
    row, _ = store.move_rollout(move_of(row, E.PUBLISHED), NOW)
    activate = VersionMove(shown, KeyEvent.ACTIVATE, lambda epoch: b"activated@%d" % epoch)
    row, epoch = store.move_rollout(move_of(row, E.PROPAGATED, "", activate), NOW)
    assert [each.state for each in store.key_versions()] == [ACTIVE, ACTIVE]
    assert check_log(store)[-2:] == [b"activated@%d" % epoch, b"1.3 CANARY 0@%d" % epoch]
    gone = next(each for each in store.key_versions() if each.version == 2)
    store.move_key_version(gone, KeyEvent.DEACTIVATE, lambda epoch: b"meanwhile", NOW)
    deactivate = VersionMove(gone, KeyEvent.DEACTIVATE, lambda epoch: b"deactivated")
    refused(
        reasons.REASON_ILLEGAL_TRANSITION,
        store.move_rollout,
        move_of(row, E.ROLL_BACK, "", deactivate),
        NOW,
    )
    assert store.rollout("demo", "orders", 0) == row
    assert [each.state for each in store.key_versions()] == [ACTIVE, DEACTIVATED]
    assert check_log(store)[-1] == b"meanwhile"


def test_a_tally_goes_on_from_where_it_was(store, second):
    row, epoch = start(store)
    store.append([b"a", b"b"], NOW)
    counted = Figures(1, 3, after=Side(signed=2))
    assert store.tally_rollout(row, counted)
    assert not second.tally_rollout(row, counted)
    assert second.rollout("demo", "orders", 0).figures == counted
    assert store.control().revocation_epoch == epoch
    row = replace(row, figures=counted)
    more = replace(counted, through_leaf=5)
    assert second.tally_rollout(row, more)
    row, _ = store.move_rollout(move_of(replace(row, figures=more), E.PUBLISHED), NOW)
    assert not second.tally_rollout(replace(row, revision=1), more)
    assert store.rollout_steps(row.id)[-1].figures == more


def test_a_pause_keeps_what_was_counted(store):
    row, _ = start(store)
    counted = Figures(1, 3, after=Side(signed=2))
    store.tally_rollout(row, counted)
    row, _ = store.move_rollout(move_of(row, PaceEvent.PAUSE, OLGA), NOW + 5)
    assert (row.pace, row.paused_ms, row.figures) == (RolloutPace.HELD, NOW + 5, counted)
    row, _ = store.move_rollout(move_of(row, PaceEvent.RESUME, OLGA), NOW + 7)
    assert (row.pace, row.paused_ms, row.figures) == (RolloutPace.RUNNING, 0, counted)
    assert store.rollout("demo", "orders", 0) == row


def test_what_is_in_force_is_under_way_or_led_to_another_algorithm(store):
    versions_only = at(store, S.DONE)
    assert store.rollouts_in_force() == []
    change = rollout(id=bytes(16), before=SignsWith(2, 2), after=SignsWith(2, ML_DSA))
    row, _ = start(store, change)
    assert store.rollouts_in_force() == [row]
    for event in WAY:
        row, _ = store.move_rollout(move_of(row, event), NOW)
    assert store.rollouts_in_force() == [row]
    assert versions_only.number == 1


@pytest.mark.parametrize(
    "engine", ["sqlite_place", pytest.param("postgres_place", marks=pytest.mark.postgres)]
)
def test_a_store_of_before_gets_the_tables(request, engine):
    place = request.getfixturevalue(engine)
    old = place.earlier(through=3)
    old.append([b"evidence of then"], NOW)
    old.close()
    store = place.open()
    start(store)
    assert check_log(store)[0] == b"evidence of then"
    store.close()
