"""Who is expected to have fetched a version before it signs, and what that keeps waiting."""

from __future__ import annotations

from dataclasses import replace

import pytest
from capsign_adapter.decide.jwks import FETCHES_BEFORE_USE, kept_s
from capsign_adapter.decide.policy_load import parse_policy
from capsign_adapter.decide.policy_shape import PolicyError
from capsign_adapter.decide.readiness import RECENT_MS, readiness
from capsign_adapter.decide.rollout_steps import due, is_open_to_people
from capsign_adapter.model.key_readers import ANONYMOUS, KeyReader
from capsign_adapter.model.lifecycle import RolloutEvent, RolloutStage
from support.adapter_rig import APP, OTHER, POLICY, RULES
from support.rollouts import NOW, PLAN, PRE, rollout, version, world

GRANTED = {("orders-jwt", APP), ("others", OTHER)}
READER = KeyReader("demo", "orders", "orders-jwt", APP, 1, 7, 3, NOW)


def found(*readers: KeyReader):
    return readiness(2, NOW, readers, GRANTED)


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
    ],
)
def test_who_may_not_fetch_any_more_is_not_waited_for(reader):
    assert found(reader) == found()


def test_those_who_ask_by_https_are_one_reader_whose_fetches_are_counted():
    unknown = replace(READER, workload=ANONYMOUS)
    assert found(unknown).missing == (unknown,)
    ready = found(replace(unknown, version=2, fetches=12), replace(READER, version=2, fetches=5))
    assert (len(ready.fetched), ready.anonymous_fetches) == (2, 12)


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
