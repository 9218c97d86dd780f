"""What a call is signed with, at every stage of a rollout."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from capsign_adapter.decide.rollout_cohort import bucket
from capsign_adapter.decide.signing_versions import signing_with
from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_adapter.model.lifecycle import RolloutStage
from capsign_adapter.model.rollouts import RolloutRow, SignsWith
from hypothesis import given
from hypothesis import strategies as st
from support.rollouts import ACTIVE, DEACTIVATED, ED25519, ES256, ML_DSA, PRE, rollout, version

S = RolloutStage
KEY = ("demo", "orders")
FLEET = [f"spiffe://capsign.test/ns/n{number}/sa/app" for number in range(400)]
EARLY = min(FLEET, key=lambda workload: bucket(rollout().id, workload))
LATE = max(FLEET, key=lambda workload: bucket(rollout().id, workload))


@dataclass
class State:
    versions: dict[tuple[str, str], tuple[KeyVersionRow, ...]]
    rollouts: dict[tuple[str, str], RolloutRow] = field(default_factory=dict)
    settled: dict[tuple[str, str], int] = field(default_factory=dict)


def state(row: RolloutRow | None, *versions: KeyVersionRow, settled: int = 0) -> State:
    return State(
        {KEY: versions or (version(2), version(1))},
        {KEY: row} if row else {},
        {KEY: settled} if settled else {},
    )


def chosen(found) -> list[tuple[int, int]]:
    return [(row.version, algorithm) for row, algorithm in found]


def asked(row, workload, algorithm=ES256, *versions, settled=0, allowed=()):
    return chosen(
        signing_with(state(row, *versions, settled=settled), KEY, workload, algorithm, allowed)
    )


def test_without_a_rollout_the_newest_that_may_sign_does():
    assert asked(None, EARLY, ES256, version(3, PRE), version(2), version(1)) == [(2, ES256)]
    old = version(1, algorithms=(ES256, ED25519))
    new = version(2, algorithms=(ES256,))
    assert asked(None, EARLY, ED25519, new, old) == [(1, ED25519)]
    assert asked(None, EARLY, ML_DSA, new, old) == []
    assert asked(None, EARLY, ES256, version(1, DEACTIVATED)) == []
    assert chosen(signing_with(State({}), KEY, EARLY, ES256)) == []


@pytest.mark.parametrize(
    ("stage", "step", "early", "late"),
    [
        (S.CANARY, 0, [2], [1]),
        (S.CANARY, 2, [2], [1]),
        (S.DUAL_SIGN, 0, [2, 1], [1, 2]),
        (S.PROMOTE, 0, [2], [2]),
        (S.RETIRE, 0, [2], [2]),
    ],
)
def test_a_new_version_comes_to_one_cohort_after_the_other(stage, step, early, late):
    row = rollout(stage, step=step)
    assert [number for number, _ in asked(row, EARLY)] == early
    assert [number for number, _ in asked(row, LATE)] == late


@pytest.mark.parametrize("stage", [S.PUBLISH, S.PROPAGATE])
def test_before_the_canary_nobody_signs_with_what_is_new(stage):
    for workload in (EARLY, LATE):
        assert asked(rollout(stage), workload, ES256, version(2, PRE), version(1)) == [(1, ES256)]


MOVES = {"before": SignsWith(1, ES256), "after": SignsWith(1, ML_DSA)}


@pytest.mark.parametrize(
    ("stage", "early", "late"),
    [
        (S.PROPAGATE, [ES256], [ES256]),
        (S.CANARY, [ML_DSA], [ES256]),
        (S.DUAL_SIGN, [ML_DSA, ES256], [ES256, ML_DSA]),
        (S.PROMOTE, [ML_DSA], [ML_DSA]),
    ],
)
def test_an_open_call_gets_the_algorithm_of_its_cohort(stage, early, late):
    row = rollout(stage, **MOVES)
    assert [each for _, each in asked(row, EARLY, 0, version(1))] == early
    assert [each for _, each in asked(row, LATE, 0, version(1))] == late


@pytest.mark.parametrize("workload", [EARLY, LATE])
def test_a_call_that_names_its_algorithm_gets_it_first(workload):
    for stage in (S.CANARY, S.PROMOTE):
        row = rollout(stage, **MOVES)
        assert asked(row, workload, ES256, version(1)) == [(1, ES256)]
        assert asked(row, workload, ED25519, version(1)) == [(1, ED25519)]
    both = rollout(S.DUAL_SIGN, **MOVES)
    assert asked(both, workload, ES256, version(1)) == [(1, ES256), (1, ML_DSA)]
    assert asked(both, workload, ML_DSA, version(1)) == [(1, ML_DSA), (1, ES256)]
    assert asked(both, workload, ED25519, version(1)) == [(1, ED25519)]


def test_what_a_grant_does_not_allow_is_neither_chosen_nor_added():
    only = (ES256, ED25519)
    row = rollout(S.PROMOTE, **MOVES)
    assert asked(row, EARLY, 0, version(1), allowed=only) == [(1, ES256)]
    both = rollout(S.DUAL_SIGN, **MOVES)
    assert asked(both, EARLY, 0, version(1), allowed=only) == [(1, ES256)]


@pytest.mark.parametrize(
    ("stage", "early", "late"),
    [
        (S.PUBLISH, [(1, ES256)], [(1, ES256)]),
        (S.CANARY, [(1, ML_DSA)], [(1, ES256)]),
        (S.DUAL_SIGN, [(1, ML_DSA), (1, ES256)], [(1, ES256), (1, ML_DSA)]),
        (S.PROMOTE, [(1, ML_DSA)], [(1, ML_DSA)]),
    ],
)
def test_who_may_not_use_what_is_left_does_not_go_ahead_of_its_cohort(stage, early, late):
    """The key's open algorithm is Ed25519, which this grant lacks: its calls went to the new one as
    soon as the rollout began, all at once.
    """
    row = rollout(stage, before=SignsWith(1, ED25519), after=SignsWith(1, ML_DSA))
    for workload, expected in ((EARLY, early), (LATE, late)):
        assert asked(row, workload, 0, version(1), allowed=(ES256, ML_DSA)) == expected


def test_a_new_version_with_other_algorithms_moves_open_calls_with_its_cohort():
    old, new = version(1, algorithms=(ED25519, ES256)), version(2, algorithms=(ES256,))
    row = rollout(S.CANARY)
    assert asked(row, EARLY, 0, new, old) == [(2, ES256)]
    assert asked(row, LATE, 0, new, old) == [(1, ED25519)]


def test_an_open_call_keeps_what_an_earlier_rollout_led_to():
    assert asked(None, EARLY, 0, version(1), settled=ML_DSA) == [(1, ML_DSA)]
    assert asked(rollout(S.CANARY), EARLY, 0, settled=ML_DSA) == [(2, ML_DSA)]
    assert asked(None, EARLY, 0, version(1)) == [(1, ED25519)]


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ((version(3), version(2), version(1)), 3),
        ((version(2, DEACTIVATED), version(1)), 1),
        ((version(2), version(1, DEACTIVATED)), 2),
    ],
)
def test_what_a_rollout_cannot_hold_any_more_is_as_without_one(versions, expected):
    """Somebody deactivated, compromised or rotated in the middle: everybody signs with the newest
    that may, from that epoch on.
    """
    for workload in (EARLY, LATE):
        assert asked(rollout(S.CANARY), workload, ES256, *versions) == [(expected, ES256)]


states = st.sampled_from([PRE, ACTIVE, DEACTIVATED])


@given(
    st.sampled_from(list(S)),
    st.integers(0, 2),
    st.lists(states, min_size=3, max_size=3),
    st.sampled_from(FLEET),
    st.sampled_from([0, ES256, ML_DSA]),
    st.sampled_from([{}, MOVES, {"before": SignsWith(1, ES256), "after": SignsWith(2, ML_DSA)}]),
)
def test_only_what_is_active_signs_and_somebody_does_if_anything_is(
    stage, step, found, workload, algorithm, move
):
    versions = [version(number, found[number - 1]) for number in (3, 2, 1)]
    row = rollout(stage, step=step if stage is S.CANARY else 0, **move)
    signed = signing_with(state(row, *versions), KEY, workload, algorithm)
    active = [each for each in versions if each.state == ACTIVE]
    assert bool(signed) == bool(active)
    assert all(each in active for each, _ in signed)
    assert len(set(signed)) == len(signed) <= (2 if stage is S.DUAL_SIGN else 1)
    if algorithm and signed:
        assert signed[0][1] == algorithm
