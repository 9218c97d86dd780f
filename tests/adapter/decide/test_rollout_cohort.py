"""Cohorts: stable, monotone, and of the size that was asked for."""

from __future__ import annotations

import hashlib

from capsign_adapter.decide.rollout_cohort import bucket, is_in, percent_of
from capsign_adapter.model.lifecycle import RolloutStage
from hypothesis import given
from hypothesis import strategies as st
from support.rollouts import rollout

identities = st.from_regex(r"spiffe://capsign\.test/[a-z0-9/]{1,40}", fullmatch=True)
ids = st.binary(min_size=16, max_size=16)
AHEAD = [
    rollout(RolloutStage.PROPAGATE),
    *(rollout(RolloutStage.CANARY, step=step) for step in range(3)),
    rollout(RolloutStage.DUAL_SIGN),
    rollout(RolloutStage.PROMOTE),
    rollout(RolloutStage.RETIRE),
]


@given(identities)
def test_who_is_in_stays_in(workload):
    inside = [is_in(row, workload) for row in AHEAD]
    assert inside == sorted(inside)
    assert not inside[0]
    assert inside[-1]


@given(ids, identities)
def test_the_bucket_is_that_of_the_documentation(rollout_id, workload):
    name = workload.encode()
    data = b"\x00\x10" + rollout_id + len(name).to_bytes(2, "big") + name
    expected = int.from_bytes(hashlib.sha256(data).digest()[:8], "big") % 10_000
    assert bucket(rollout_id, workload) == expected


def test_a_cohort_has_about_its_part_and_another_rollout_another():
    workloads = [f"spiffe://capsign.test/ns/n{number}/sa/app" for number in range(10_000)]
    row = rollout(RolloutStage.CANARY, step=1)
    assert percent_of(row) == 10
    inside = {workload for workload in workloads if is_in(row, workload)}
    assert 900 < len(inside) < 1100
    other = rollout(RolloutStage.CANARY, step=1, id=bytes(16))
    both = inside & {workload for workload in workloads if is_in(other, workload)}
    assert 60 < len(both) < 150
