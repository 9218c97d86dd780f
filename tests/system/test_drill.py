"""The drill: keys and algorithms are changed across a small fleet under load, and taken back, and
nobody notices who was not meant to.

Two adapters, an agent each of three workloads, 64 callers, and for each workload somebody who
verifies what it signs, who fetches the public keys from the listener for verifiers and keeps them
to the letter.
"""

from __future__ import annotations

from typing import Any

import pytest
from capsign_adapter.decide.rollout_analysis import Verdict
from capsign_adapter.decide.rollout_cohort import bucket
from capsign_adapter.model.lifecycle import RolloutStage
from capsign_adapter.model.rollouts import BUCKETS
from capsign_evidence.leaf_kinds import Act
from capsign_evidence.leaf_reader import SignedTwice
from capsign_wire.adapter.v1 import rollouts_pb2 as pb
from capsign_wire.types.v1 import algorithms_pb2
from support.adapter_rig import OPERATOR
from support.drill import CALLERS, Drill
from support.drill_evidence import Evidence
from support.fleet import KEY, TENANT, WORKLOADS, Fleet, spiffe_id

QUICK = {
    "propagation": "6s",
    "canary": [{"percent": 50, "bake": "3s"}],
    "dual_sign": "3s",
    "promote": "3s",
    "retire": "1s",
    "triggers": {"min_samples": 20, "min_verifications": 20, "p99": "30s"},
}
"""Stages of seconds: verifiers keep a set for two of them."""


@pytest.fixture
def fleet(request, short_dir):
    made = Fleet(short_dir / "d", getattr(request, "param", QUICK))
    yield made
    made.close()


def evidence_of(fleet: Fleet) -> Evidence:
    """What is left when everybody has delivered."""
    fleet.end_agents()
    store = fleet.dev.opened_store()
    try:
        return Evidence(store)
    finally:
        store.close()


def is_done(row) -> bool:
    return row.stage == RolloutStage.DONE


def test_a_key_is_rotated_under_load_and_nobody_notices(fleet):
    with Drill(fleet) as drill:
        fleet.start()
        row = fleet.until(is_done)
        drill.more()
    outcome = drill.outcome
    assert outcome.failed == []
    assert [one for each in WORKLOADS for one in outcome.failures_of(each)] == []
    versions = {one.call.key_version for one in outcome.held}
    assert versions == {row.before.version, row.after.version}
    assert {one.call.key_version for one in outcome.held[-len(WORKLOADS) :]} == {row.after.version}
    assert all(party.unchanged and party.fetched > 1 for party in drill.parties.values())
    evidence = evidence_of(fleet)
    assert evidence.disagreements(outcome) == []
    assert any(isinstance(entry, SignedTwice) for entry in evidence.signed.values())
    taken = [step.act for _, step in evidence.steps]
    assert evidence.undue(evidence.steps[-1][1]) == []
    assert Act.ROLLOUT_SIGNS_TWICE in taken
    assert taken[-1] is Act.ROLLOUT_DONE


BAKED_S = 40
"""Longer than a failing cohort has: the trigger is to come first."""

CAUTIOUS = QUICK | {"canary": [{"percent": 50, "bake": f"{BAKED_S}s"}]}


def cohort_of(row: pb.Rollout) -> set[str]:
    """The workloads of its first canary."""
    first = next(each for each in row.plan if each.stage == RolloutStage.CANARY)
    below = first.percent * BUCKETS // 100
    return {each for each in WORKLOADS if bucket(row.id, spiffe_id(each)) < below}


def started_with_two(fleet: Fleet, **wish: Any) -> tuple[pb.Rollout, set[str]]:
    """A rollout whose cohort has two of the three workloads: chance decides, and is known once it
    has begun. What one alone reports rolls nothing back before the end of the step.
    """
    while True:
        row = fleet.start(overtake=True, **wish)
        cohort = cohort_of(row)
        if len(cohort) == 2:
            return row, cohort


@pytest.mark.parametrize("fleet", [CAUTIOUS], indirect=True)
def test_a_cohort_whose_verifiers_fail_is_taken_back_and_nobody_else_notices(fleet):
    with Drill(fleet) as drill:
        for party in drill.parties.values():
            party.forgets = False  # before anything new is published, so that none of them has it
        row, cohort = started_with_two(fleet)
        for workload in set(WORKLOADS) - cohort:
            drill.parties[workload].forgets = True
        began = fleet.until(lambda now: now.stage >= RolloutStage.CANARY)
        ended = fleet.until(lambda now: now.stage == RolloutStage.ROLLED_BACK)
        drill.more()
        back = len(drill.outcome.held)
        drill.more()
    outcome = drill.outcome
    assert outcome.failed == []
    assert began.stage == RolloutStage.CANARY
    baked_ms = ended.stage_since.ToMilliseconds() - began.stage_since.ToMilliseconds()
    assert 0 < baked_ms < BAKED_S * 1000
    assert all(outcome.failures_of(workload) for workload in cohort)
    assert [one for each in set(WORKLOADS) - cohort for one in outcome.failures_of(each)] == []
    assert {one.call.key_version for one in outcome.held[back:]} == {row.before.version}
    assert all(all(one.verified) for one in outcome.held[back:])
    evidence = evidence_of(fleet)
    assert evidence.disagreements(outcome) == []
    assert_told_by_evidence_alone(evidence, row, cohort)


@pytest.mark.parametrize("fleet", [CAUTIOUS], indirect=True)
def test_a_cohort_whose_verifiers_do_not_know_the_new_algorithm_is_taken_back(fleet):
    """ES256 to ML-DSA-65, of calls that leave the algorithm open."""
    with Drill(fleet, algorithm=None) as drill:
        row, cohort = started_with_two(fleet, algorithm=algorithms_pb2.ALGORITHM_ML_DSA_65)
        for workload in cohort:
            drill.parties[workload].knows_ml_dsa = False
        began = fleet.until(lambda now: now.stage >= RolloutStage.CANARY)
        ended = fleet.until(lambda now: now.stage == RolloutStage.ROLLED_BACK)
        drill.more()
        back = len(drill.outcome.held)
        drill.more()
        for workload in cohort:
            drill.parties[workload].knows_ml_dsa = True
        mended, _ = started_with_two(fleet, algorithm=algorithms_pb2.ALGORITHM_ML_DSA_65)
        fleet.until(lambda now: now.stage == RolloutStage.CANARY)
        fleet.ask("PromoteRollout", pb.PromoteRolloutRequest(tenant=TENANT, key=KEY))
        drill.until(lambda held: any(one.call.others for one in held[-CALLERS:]))
        fleet.until(is_done)
        drill.more()
        forth = len(drill.outcome.held)
        drill.more()
    outcome = drill.outcome
    assert outcome.failed == []
    baked_ms = ended.stage_since.ToMilliseconds() - began.stage_since.ToMilliseconds()
    assert 0 < baked_ms < BAKED_S * 1000
    assert all(outcome.failures_of(workload) for workload in cohort)
    assert [one for each in set(WORKLOADS) - cohort for one in outcome.failures_of(each)] == []
    assert all(all(one.verified) for one in outcome.held[back:])
    assert {one.call.algorithm for one in outcome.held[back : back + CALLERS // 2]} == {"ES256"}
    assert {one.call.algorithm for one in outcome.held[forth:]} == {"ML-DSA-65"}
    twice = [one.call.signatures for one in outcome.held if one.call.others]
    assert all({each.algorithm for each in both} == {"ES256", "ML-DSA-65"} for both in twice)
    evidence = evidence_of(fleet)
    assert evidence.disagreements(outcome) == []
    assert_told_by_evidence_alone(evidence, row, cohort)
    last = [step for _, step in evidence.steps if step.rollout == mended.id][-1]
    assert evidence.undue(last) == []


def assert_told_by_evidence_alone(evidence: Evidence, row: pb.Rollout, cohort: set[str]) -> None:
    """Who decided what, when, on which samples: an auditor with a copy of the log comes to the same
    figures and the same verdict, and finds no signature that was not due.
    """
    story = [(index, step) for index, step in evidence.steps if step.rollout == row.id]
    assert [(step.act, step.actor) for _, step in story] == [
        (Act.ROLLOUT_STARTED, OPERATOR),
        (Act.ROLLOUT_PROPAGATES, ""),
        (Act.ROLLOUT_CANARY, ""),
        (Act.ROLLOUT_ROLLED_BACK, ""),
    ]
    assert [step.time_ms for _, step in story] == sorted(step.time_ms for _, step in story)
    (since, _), (until, end) = story[-2:]
    assert since < end.first_leaf <= end.through_leaf <= until
    assert end.verdict == Verdict.FAILED
    assert evidence.counted_again(end) == (end.after, end.before, end.verdict)
    assert end.after.verify_failed > 0
    assert end.before.verify_failed == 0
    ahead = {entry.group.workload for index, entry in evidence.made_with(end) if index < until}
    assert ahead == {spiffe_id(each) for each in cohort}
