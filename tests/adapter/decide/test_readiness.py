"""Who is expected to have fetched a version before it signs, and what that keeps waiting."""

from __future__ import annotations

from dataclasses import replace

import pytest
from capsign_adapter.decide.jwks import FETCHES_BEFORE_USE, kept_s
from capsign_adapter.decide.policy_load import parse_policy
from capsign_adapter.decide.policy_shape import PolicyError
from capsign_adapter.decide.readiness import (
    RECENT_MS,
    Expected,
    demand_ready,
    expected,
    is_named,
    readiness,
)
from capsign_adapter.decide.rollout_steps import due, is_open_to_people
from capsign_adapter.model.key_readers import ANONYMOUS, BY_HTTPS, KeyReader
from capsign_adapter.model.lifecycle import RolloutEvent, RolloutStage
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import signing_pb2
from support.adapter_rig import APP, AUDITOR, OTHER, POLICY, RULES, STRANGER
from support.rollouts import NOW, PLAN, PRE, rollout, version, world

GRANTED = {("orders-jwt", APP), ("others", OTHER)}
WHO = Expected(GRANTED, {AUDITOR})
READER = KeyReader("demo", "orders", "orders-jwt", APP, 1, 7, 3, NOW)


def found(*readers: KeyReader):
    return readiness(2, NOW, readers, WHO)


def test_who_has_the_new_version_has_fetched_it_and_who_has_an_older_one_has_not():
    new, old = replace(READER, version=2), replace(READER, grant="others", workload=OTHER)
    ready = found(old, new)
    assert (ready.fetched, ready.missing) == ((new,), (old,))


def test_a_version_after_it_will_do():
    assert found(replace(READER, version=3)).fetched


def test_who_was_silent_for_long_has_nothing_in_a_cache_and_is_not_waited_for():
    assert found(replace(READER, fetched_ms=NOW - RECENT_MS)).missing
    assert not found(replace(READER, fetched_ms=NOW - RECENT_MS - 1)).missing


@pytest.mark.parametrize(
    "reader",
    [
        replace(READER, workload=OTHER),
        replace(READER, grant="gone"),
        replace(READER, grant="gone", workload=ANONYMOUS),
        replace(READER, grant="gone", workload=BY_HTTPS + AUDITOR),
        replace(READER, workload=BY_HTTPS + APP),
    ],
)
def test_who_may_not_fetch_any_more_is_not_waited_for(reader):
    assert found(reader) == found()


def test_those_who_ask_by_https_are_one_reader_whose_fetches_are_counted():
    unknown = replace(READER, workload=ANONYMOUS)
    assert found(unknown).missing == (unknown,)
    ready = found(replace(unknown, version=2, fetches=12), replace(READER, version=2, fetches=5))
    assert (len(ready.fetched), ready.anonymous_fetches) == (2, 12)


def test_who_shows_a_certificate_by_https_is_waited_for_by_name():
    named, others = (
        replace(READER, workload=BY_HTTPS + AUDITOR),
        replace(READER, workload=ANONYMOUS),
    )
    ready = found(named, replace(others, version=2, fetches=4))
    assert (ready.missing, ready.anonymous_fetches) == ((named,), 4)


def test_who_counts_by_name_is_known_to_the_policy():
    """Anybody of the trust domain can get a certificate; whom policy does not know keeps nobody
    waiting.
    """
    readers = [replace(READER, workload=BY_HTTPS + each) for each in (APP, AUDITOR, STRANGER)]
    who = expected(RULES, "demo", "orders", readers)
    assert set(who.named) == {APP, AUDITOR}
    assert not is_named(RULES, "another", APP)
    assert ("orders-jwt", APP) in who.granted


STRICT = replace(RULES, rollouts=replace(PLAN, readiness_required=True))
OVER = NOW + PLAN.propagation_ms


@pytest.mark.parametrize(
    ("said", "row", "readers", "now"),
    [
        ("never shown", version(2, PRE, published_ms=0), (), OVER),
        ("for 1s more", version(2, PRE), (), OVER - 1),
        (f"by {APP}", version(2, PRE), (READER,), OVER),
        ("and 1 more", version(2, PRE), (READER, replace(READER, workload=ANONYMOUS)), OVER),
    ],
)
def test_by_hand_no_version_signs_before_its_verifiers_have_it(said, row, readers, now):
    with pytest.raises(FailureError, match=said) as caught:
        demand_ready(STRICT, [row, version(1)], row, readers, now)
    assert caught.value.row.name == "VERIFIERS_NOT_READY"
    # nobody waits where policy does not demand it, and where no other version signs
    demand_ready(replace(RULES, rollouts=PLAN), [row, version(1)], row, readers, now)
    suspended = version(1, signing_pb2.KEY_STATE_SUSPENDED)
    demand_ready(STRICT, [row, suspended], row, readers, now)


def test_by_hand_a_version_signs_once_everybody_has_it():
    row, has = version(2, PRE), replace(READER, version=2)
    demand_ready(STRICT, [row, version(1)], row, [has], OVER)


REQUIRED = replace(PLAN, readiness_required=True)


def before(missing: int):
    return replace(world(version(2, PRE), version(1)), missing=missing)


@pytest.mark.parametrize(
    ("plan", "missing", "event"),
    [
        (PLAN, 0, RolloutEvent.PROPAGATED),
        (PLAN, 1, RolloutEvent.PROPAGATED),
        (REQUIRED, 0, RolloutEvent.PROPAGATED),
        (REQUIRED, 1, None),
    ],
    ids=["ready", "not-demanded", "ready-as-demanded", "not-ready"],
)
def test_the_window_decides_and_readiness_where_it_is_demanded(plan, missing, event):
    row, seen = rollout(RolloutStage.PROPAGATE, plan=plan), before(missing)
    over = NOW + PLAN.propagation_ms
    assert due(row, seen, over - 1) is None
    assert due(row, seen, over) is event


def test_nobody_cuts_the_window_short_and_a_person_may_end_the_wait_after_it():
    row, seen = rollout(RolloutStage.PROPAGATE, plan=REQUIRED), before(1)
    over = NOW + PLAN.propagation_ms
    assert not is_open_to_people(row, seen, over - 1)
    assert is_open_to_people(row, seen, over)
    assert not is_open_to_people(row, before(0), over)  # goes on by itself
    assert not is_open_to_people(rollout(RolloutStage.PUBLISH), seen, over)


def said(window: str) -> bytes:
    return f"{POLICY}rollouts: {{propagation: {window}}}\n".encode()


def test_a_window_in_which_keys_are_not_fetched_three_times_is_refused():
    plan = parse_policy(said("3s")).rollouts
    assert plan.propagation_ms >= 1000 * FETCHES_BEFORE_USE * kept_s(replace(RULES, rollouts=plan))
    with pytest.raises(PolicyError, match="3s to ") as caught:
        parse_policy(said("2999ms"))
    assert caught.value.problems[0].path == "rollouts.propagation"


def test_while_a_rollout_is_under_way_nothing_is_kept_longer_than_it_takes_for_granted():
    longer = replace(RULES, rollouts=replace(PLAN, propagation_ms=90_000))
    row = rollout(RolloutStage.PROPAGATE, plan=replace(PLAN, propagation_ms=15_000))
    assert [kept_s(longer), kept_s(longer, row)] == [30, 5]
    longest = rollout(RolloutStage.PROPAGATE, plan=replace(PLAN, propagation_ms=900_000))
    assert kept_s(longer, longest) == 30
