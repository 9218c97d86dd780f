"""The drill: keys and algorithms are changed across a small fleet under load, and taken back, and
nobody notices who was not meant to.

Two adapters, an agent each of three workloads, 64 callers, and for each workload somebody who
verifies what it signs, who fetches the public keys from the listener for verifiers and keeps them
to the letter.
"""

from __future__ import annotations

import pytest
from capsign_adapter.model.lifecycle import RolloutStage
from capsign_evidence.leaf import Act
from capsign_evidence.leaf_reader import SignedTwice
from support.drill import Drill
from support.drill_evidence import Evidence
from support.fleet import WORKLOADS, Fleet

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
def fleet(short_dir):
    made = Fleet(short_dir / "d", QUICK)
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
    assert Act.ROLLOUT_SIGNS_TWICE in taken
    assert taken[-1] is Act.ROLLOUT_DONE
