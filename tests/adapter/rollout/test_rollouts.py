"""Rollouts on a real signing path: what is signed with at each step, what rolls back, what pauses,
and what is left in the log.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from capsign_adapter.decide.policy import Rotation
from capsign_adapter.decide.rollout_analysis import Verdict, verdict_of
from capsign_adapter.decide.rollout_cohort import is_in
from capsign_adapter.decide.rollout_samples import count, summary
from capsign_adapter.decide.rollout_start import left_behind
from capsign_adapter.model.key_readers import KeyReader
from capsign_adapter.model.lifecycle import KeyEvent, RolloutPace, RolloutStage
from capsign_adapter.model.rollouts import CanaryStep, Figures
from capsign_evidence.leaf_kinds import Act
from capsign_evidence.leaf_reader import Admin, SignedTwice, decode
from capsign_evidence.rollout_leaf import RolloutStep, VerificationsReported
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import failures_pb2 as reasons
from capsign_wire.types.v1 import signing_pb2
from cryptography.hazmat.primitives.serialization import load_der_public_key
from support.adapter_rig import APP, OPERATOR, OTHER, peer
from support.rollout_rig import ED25519, KEY, Clock, RolloutRig
from support.rollouts import ACTIVE, DEACTIVATED, ES384, ML_DSA, PLAN, PRE

S = RolloutStage
DAY_MS = 86_400_000
WIDE = replace(PLAN, canary=(CanaryStep(99, 60_000),))
"""Nearly everybody is in the canary."""


@pytest.fixture
def rollouts(rig):
    return RolloutRig(rig, Clock(), WIDE)


def states(rollouts) -> list[int]:
    rows = [row for row in rollouts.rig.store.key_versions() if row.key == "orders"]
    return [row.state for row in sorted(rows, key=lambda row: row.version)]


def refused(reason: int, call, *arguments, **more) -> None:
    with pytest.raises(FailureError) as caught:
        call(*arguments, **more)
    assert caught.value.reason == reason, caught.value.detail


def report(rollouts, version: int, verified: int, failed: int) -> None:
    entry = VerificationsReported(
        rollouts.clock.now, bytes(32), OPERATOR, *KEY, version, ED25519, verified, failed
    )
    rollouts.rig.store.append([entry.encode()], rollouts.clock.now)


def steps_of(rollouts) -> list[RolloutStep]:
    entries = [decode(entry) for entry in rollouts.rig.entries()]
    return [entry for entry in entries if isinstance(entry, RolloutStep)]


def test_a_new_version_comes_by_itself_if_all_is_well(rollouts):
    rollouts.start()
    assert states(rollouts) == [ACTIVE, PRE]
    assert rollouts.look().stage is S.PROPAGATE
    assert rollouts.rig.store.key_versions()[-1].published_ms > 0
    assert rollouts.look(PLAN.propagation_ms - 1).stage is S.PROPAGATE
    assert rollouts.signed_with() == 1
    row = rollouts.look(1)
    assert (row.stage, states(rollouts)) == (S.CANARY, [ACTIVE, ACTIVE])
    assert rollouts.signed_with() == 1 + is_in(row, APP)
    rollouts.sign(100)
    rollouts.sign(100, who=peer(OTHER), handle=rollouts.rig.handle("others", peer(OTHER)))
    assert rollouts.look(60_000).stage is S.DUAL_SIGN
    rollouts.sign(100)
    # S counts what is signed twice; until then nobody signs with the new one alone here
    row = rollouts.rollouts.promote(OPERATOR, *KEY)
    assert row.stage is S.PROMOTE
    assert rollouts.signed_with() == 2
    rollouts.sign(100)
    assert rollouts.look(120_000).stage is S.RETIRE
    assert states(rollouts) == [ACTIVE, ACTIVE]
    assert rollouts.look(3_600_000).stage is S.DONE
    assert states(rollouts) == [DEACTIVATED, ACTIVE]
    assert rollouts.signed_with() == 2
    assert [step.act for step in steps_of(rollouts)] == [
        Act.ROLLOUT_STARTED,
        Act.ROLLOUT_PROPAGATES,
        Act.ROLLOUT_CANARY,
        Act.ROLLOUT_SIGNS_TWICE,
        Act.ROLLOUT_PROMOTED,
        Act.ROLLOUT_RETIRES,
        Act.ROLLOUT_DONE,
    ]


def test_failed_verifications_roll_back_by_themselves_and_the_log_says_why(rollouts):
    rollouts.start()
    rollouts.until(S.CANARY)
    rollouts.sign(40)
    report(rollouts, 2, verified=90, failed=10)
    report(rollouts, 1, verified=500, failed=0)
    assert rollouts.look().stage is S.ROLLED_BACK
    assert states(rollouts) == [ACTIVE, DEACTIVATED]
    assert rollouts.signed_with() == 1
    last = steps_of(rollouts)[-1]
    assert (last.act, last.actor) == (Act.ROLLOUT_ROLLED_BACK, "")
    assert (last.after.verified, last.after.verify_failed) == (90, 10)
    assert last.before.verified == 500
    assert last.verdict == Verdict.FAILED


def test_whoever_has_the_log_comes_to_the_same_figures(rollouts):
    rollouts.start()
    row = rollouts.until(S.CANARY)
    rollouts.sign(30)
    report(rollouts, 2, verified=50, failed=50)
    rollouts.look()
    last = steps_of(rollouts)[-1]
    entries = rollouts.rig.store.entries(last.first_leaf, last.through_leaf - last.first_leaf)
    begun = replace(row, figures=Figures(last.first_leaf, last.first_leaf))
    figures = count(begun, {"orders-jwt", "others"}, entries, {})
    assert summary(figures.after) == last.after
    assert summary(figures.before) == last.before
    assert figures.after.signed + figures.before.signed == 30
    assert verdict_of(figures.after, row.plan.triggers) == last.verdict


def test_too_few_samples_pause_and_a_person_decides(rollouts):
    rollouts.start()
    rollouts.until(S.CANARY)
    row = rollouts.look(60_000)
    assert (row.stage, row.pace) == (S.CANARY, RolloutPace.INCONCLUSIVE)
    assert rollouts.look(DAY_MS).pace is RolloutPace.INCONCLUSIVE
    rollouts.rollouts.resume(OPERATOR, *KEY)
    rollouts.sign(200)
    rollouts.sign(200, who=peer(OTHER), handle=rollouts.rig.handle("others", peer(OTHER)))
    assert rollouts.look(59_999).stage is S.CANARY
    assert rollouts.look(1).stage is S.DUAL_SIGN
    refused(reasons.REASON_ILLEGAL_TRANSITION, rollouts.rollouts.resume, OPERATOR, *KEY)


def test_what_is_paused_goes_no_further_but_rolls_back(rollouts):
    rollouts.start()
    rollouts.until(S.CANARY)
    rollouts.rollouts.pause(OPERATOR, *KEY)
    assert rollouts.look(DAY_MS).pace is RolloutPace.HELD
    report(rollouts, 2, verified=0, failed=50)
    assert rollouts.look().stage is S.ROLLED_BACK


def test_the_time_for_verifiers_is_not_cut_short(rollouts):
    rollouts.start()
    promote = rollouts.rollouts.promote
    refused(reasons.REASON_ROLLOUT_CONFLICT, promote, OPERATOR, *KEY, full=True)
    rollouts.look()
    refused(reasons.REASON_ROLLOUT_CONFLICT, promote, OPERATOR, *KEY, full=True)
    row = rollouts.until(S.CANARY)
    refused(reasons.REASON_ROLLOUT_CONFLICT, promote, OPERATOR, *KEY, revision=row.revision - 1)
    assert promote(OPERATOR, *KEY, full=True, revision=row.revision).stage is S.PROMOTE
    assert rollouts.signed_with() == 2


@pytest.mark.parametrize(
    "stage", [S.PUBLISH, S.PROPAGATE, S.CANARY, S.DUAL_SIGN, S.PROMOTE, S.RETIRE]
)
def test_abort_at_every_stage_gives_back_what_was_before(rollouts, stage):
    rollouts.start()
    if stage is not S.PUBLISH:
        rollouts.until(stage)
    assert rollouts.rollouts.abort(OPERATOR, *KEY).stage is S.ABORTED
    assert rollouts.signed_with() == 1
    assert states(rollouts) == [ACTIVE, PRE if stage in {S.PUBLISH, S.PROPAGATE} else DEACTIVATED]
    assert rollouts.look(DAY_MS).stage is S.ABORTED
    refused(reasons.REASON_ROLLOUT_CONFLICT, rollouts.rollouts.abort, OPERATOR, *KEY)


def test_a_version_that_never_signed_is_taken_before_another_is_made(rollouts):
    rollouts.start()
    rollouts.look()
    rollouts.rollouts.abort(OPERATOR, *KEY)
    assert rollouts.start().after.version == 2
    rollouts.until(S.CANARY)
    rollouts.rollouts.abort(OPERATOR, *KEY)
    assert rollouts.start().after.version == 3
    epochs = [row.activation_epoch for row in rollouts.rig.store.key_versions()]
    assert len({epoch for epoch in epochs if epoch}) <= len(epochs)


def test_a_call_is_answered_twice_and_one_leaf_names_both(rollouts):
    rollouts.start()
    rollouts.until(S.DUAL_SIGN)
    rig, intents = rollouts.rig, [new_intent_id(), new_intent_id()]
    told = rig.sign(b"m", b"n", intents=intents)
    assert len({item.leaf_index for item in told}) == 2
    for item, message in zip(told, (b"m", b"n"), strict=True):
        entry = decode(rig.entries()[item.leaf_index])
        assert isinstance(entry, SignedTwice)
        assert {entry.group.key_version, entry.second.key_version} == {1, 2}
        assert entry.group.context_digest != entry.second.context_digest
        hashes = [hashlib.sha256(one.value).digest() for one in item.signatures]
        assert hashes == [entry.signature_hash, entry.second_signature_hash]
        suffix = signing_pb2.ContextSuffix(role="issuer")
        known = rig.keys.of(peer(), rig.handle(), ED25519, suffix)
        keys: dict[int, Any] = {key.version: load_der_public_key(key.spki) for key, _ in known}
        versions = (entry.group.key_version, entry.second.key_version)
        for version, one in zip(versions, item.signatures, strict=True):
            keys[version].verify(one.value, message)
    assert rig.sign(b"m", b"n", intents=intents) == told
    assert rig.store.control().tree_size == len(rig.entries())


def test_two_that_take_other_inputs_do_not_sign_one_call(rollouts):
    """What was sent for one algorithm is not what the other signs."""
    rollouts.start(ML_DSA)
    rollouts.until(S.DUAL_SIGN)
    (item,) = rollouts.rig.sign(b"m", algorithm=ED25519)
    assert len(item.signatures) == 1


def test_another_algorithm_for_calls_that_leave_it_open_and_back(rollouts):
    row = rollouts.start(ML_DSA)
    assert (row.before, row.after.version) == (replace(row.before, version=1), 1)
    assert row.before.algorithm == ED25519
    rollouts.until(S.DONE)
    assert states(rollouts) == [ACTIVE]
    assert rollouts.rig.snapshots.current.settled == {KEY: ML_DSA}
    refused(reasons.REASON_ROLLOUT_CONFLICT, rollouts.start, ML_DSA)
    back = rollouts.rollouts.undo(OPERATOR, *KEY, 0)
    assert (back.before.algorithm, back.after.algorithm) == (ML_DSA, ED25519)
    assert back.previous == row.id


def test_an_algorithm_that_no_grant_or_the_key_has_is_refused_beforehand(rig):
    grants = tuple(replace(grant, algorithms=frozenset({ED25519})) for grant in rig.policy.grants)
    rollouts = RolloutRig(rig, Clock(), WIDE, grants=grants)
    refused(reasons.REASON_ALGORITHM_NOT_ALLOWED, rollouts.start, ML_DSA)
    refused(reasons.REASON_ALGORITHM_NOT_ALLOWED, rollouts.start, ES384)


def test_grants_that_cannot_follow_are_named(rig):
    rollouts = RolloutRig(rig, Clock(), WIDE, grants=rig.policy.grants)
    row = rollouts.start(ML_DSA)
    assert left_behind(rollouts.policy, row) == ["others", "slow", "thrice"]
    rollouts.rollouts.abort(OPERATOR, *KEY)
    assert left_behind(rollouts.policy, rollouts.start()) == []


def test_undo_makes_a_new_version_for_what_was_deactivated(rollouts):
    rollouts.start()
    refused(reasons.REASON_ROLLOUT_CONFLICT, rollouts.rollouts.undo, OPERATOR, *KEY, 0)
    rollouts.until(S.DONE)
    back = rollouts.rollouts.undo(OPERATOR, *KEY, 0)
    assert (back.before.version, back.after.version, back.number) == (2, 3, 2)
    rollouts.until(S.DONE)
    assert states(rollouts) == [DEACTIVATED, DEACTIVATED, ACTIVE]
    refused(reasons.REASON_NOT_FOUND, rollouts.rollouts.undo, OPERATOR, *KEY, 7)


def test_one_is_under_way_unless_another_overtakes_it(rollouts):
    rollouts.start()
    refused(reasons.REASON_ROLLOUT_CONFLICT, rollouts.start)
    rollouts.until(S.CANARY)
    other = rollouts.start(overtake=True)
    assert (other.number, other.before.version, other.after.version) == (2, 1, 3)
    assert states(rollouts) == [ACTIVE, DEACTIVATED, PRE]
    assert rollouts.rig.store.rollout(*KEY, 1).stage is S.OVERTAKEN
    assert rollouts.signed_with() == 1


def test_a_version_that_somebody_deactivates_overtakes_it(rollouts):
    rollouts.start()
    rollouts.until(S.CANARY)
    (new,) = [row for row in rollouts.rig.store.key_versions() if row.version == 2]
    rollouts.rig.store.move_key_version(new, KeyEvent.DEACTIVATE, lambda epoch: b"by hand", 1)
    rollouts.rig.snapshots.refresh()
    assert rollouts.signed_with() == 1
    refused(reasons.REASON_ROLLOUT_OVERTAKEN, rollouts.rollouts.promote, OPERATOR, *KEY)
    assert rollouts.newest().stage is S.OVERTAKEN
    assert states(rollouts) == [ACTIVE, DEACTIVATED]


def test_replicas_take_each_step_once_and_go_on_after_all_restart(rollouts):
    """At every step another replica, which has just started, goes on."""
    rollouts.start()
    clock, seen = rollouts.clock, []
    while not (row := rollouts.newest()).is_final:
        seen.append(row.stage)
        clock.now += 3_600_000
        fresh = [RolloutRig(rollouts.rig.beside(), clock, WIDE) for _ in range(2)]
        for each in fresh:
            each.look()
        if rollouts.newest().pace is not RolloutPace.RUNNING:
            fresh[0].rollouts.promote(OPERATOR, *KEY)
        for each in fresh:
            each.rig.close()
    assert row.stage is S.DONE
    acts = [step.act for step in steps_of(rollouts) if step.act != Act.ROLLOUT_DOUBTED]
    assert len(acts) == len(set(acts)) == 7


@pytest.mark.parametrize("stage", [S.PROPAGATE, S.CANARY, S.PROMOTE])
@pytest.mark.parametrize("percent", [1, 99])
def test_the_first_public_key_is_the_one_that_signs_for_who_asks(rig, stage, percent):
    """An agent makes the mu of an ML-DSA signature for the first key that it is told. In a canary
    the newest key is not the one that signs for those who are not in it: they were refused
    KEY_SUPERSEDED, again and again.
    """
    plan = replace(PLAN, canary=(CanaryStep(percent, 60_000),))
    rollouts = RolloutRig(rig, Clock(), plan)
    rollouts.start()
    rollouts.until(stage)
    context = signing_pb2.ContextSuffix(role="issuer")
    found = rig.keys.of(peer(), rig.handle("orders-jwt"), ML_DSA, context)
    assert found[0][0].version == rollouts.signed_with()


def test_each_move_of_a_version_has_its_leaf(rollouts):
    rollouts.start()
    rollouts.until(S.DONE)
    entries = [decode(entry) for entry in rollouts.rig.entries()]
    found = [
        (entry.act, entry.target)
        for entry in entries
        if isinstance(entry, Admin) and entry.target.startswith("demo/orders/")
    ]
    assert found[-4:] == [
        (Act.KEY_CREATED, "demo/orders/2"),
        (Act.KEY_PUBLISHED, "demo/orders/2"),
        (Act.KEY_ACTIVATED, "demo/orders/2"),
        (Act.KEY_DEACTIVATED, "demo/orders/1"),
    ]


def rotating(rig, clock):
    keys = tuple(
        replace(key, rotation=Rotation(90 * DAY_MS, 0)) if key.name == "orders" else key
        for key in rig.policy.keys
    )
    return RolloutRig(rig, clock, WIDE, keys=keys)


def test_how_rollouts_end_is_counted(rollouts):
    rollouts.start()
    rollouts.start(overtake=True)
    rollouts.rollouts.abort(OPERATOR, *KEY)
    ends = rollouts.metrics.snapshot()["capsign.rollout.ends"]
    assert {end: count for (end,), count in ends.items() if count} == {"overtaken": 1, "aborted": 1}


def test_a_rotation_begins_when_it_is_due_and_once(rig):
    clock = Clock()
    rollouts = rotating(rig, clock)
    assert rollouts.look() is None
    row = rollouts.look(90 * DAY_MS)
    assert (row.number, row.stage, row.started_by) == (
        1,
        S.PUBLISH,
        "spiffe://capsign.test/adapter/rollout",
    )
    rollouts.until(S.DONE)
    assert rollouts.look(DAY_MS).number == 1


def test_a_rotation_that_failed_is_not_tried_for_ever(rig):
    rollouts = rotating(rig, Clock())
    rollouts.look(90 * DAY_MS)
    rollouts.until(S.CANARY)
    report(rollouts, 2, verified=0, failed=100)
    assert rollouts.look().stage is S.ROLLED_BACK
    assert rollouts.look(DAY_MS).number == 1


@pytest.mark.parametrize("window_ms", [3_000, 6_000, 180_000, 900_000])
def test_a_kid_is_visible_for_three_refreshes_before_it_signs(rig, window_ms):
    """A verifier that keeps a set for as long as it may misses no key, even if it fails to fetch
    two times. A set that may be kept for longer than a third of the window fails here.
    """
    rollouts = RolloutRig(rig, Clock(), replace(WIDE, propagation_ms=window_ms))
    rollouts.start()
    rollouts.look()
    kept_ms = rig.snapshots.current.kept_s(*KEY) * 1000
    assert rollouts.look(window_ms).stage is S.CANARY
    row = next(row for row in rig.store.key_versions() if row.version == 2)
    assert row.activated_ms - row.published_ms >= 3 * kept_ms >= 3_000


def test_where_readiness_is_demanded_the_canary_waits_for_who_verified_before(rig):
    strict = replace(WIDE, readiness_required=True)
    rollouts = RolloutRig(rig, Clock(), strict)
    rig.store.note_key_readers([reader(rollouts, version=1)], rollouts.clock.now)
    rollouts.start()
    rollouts.look()
    refused(reasons.REASON_ROLLOUT_CONFLICT, rollouts.rollouts.promote, OPERATOR, *KEY)
    assert rollouts.look(PLAN.propagation_ms).stage is S.PROPAGATE
    rig.store.note_key_readers([reader(rollouts, version=2)], rollouts.clock.now)
    assert rollouts.look().stage is S.CANARY


@pytest.mark.parametrize(("full", "stage"), [(False, S.CANARY), (True, S.PROMOTE)])
def test_a_person_ends_the_wait_for_who_does_not_come(rig, full, stage):
    rollouts = RolloutRig(rig, Clock(), replace(WIDE, readiness_required=True))
    rig.store.note_key_readers([reader(rollouts, version=1)], rollouts.clock.now)
    rollouts.start()
    rollouts.look()
    assert rollouts.look(PLAN.propagation_ms).stage is S.PROPAGATE
    assert rollouts.rollouts.promote(OPERATOR, *KEY, full=full).stage is stage


def reader(rollouts, **changes) -> KeyReader:
    """Somebody who verifies what APP signs."""
    seen = KeyReader(*KEY, "orders-jwt", APP, 1, 1, 1, rollouts.clock.now)
    return replace(seen, **changes)
