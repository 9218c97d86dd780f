"""One workload that lies about a step neither hides that it fails nor rolls it back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from capsign_adapter.decide.rollout_analysis import Verdict, measures, verdict_of
from capsign_adapter.decide.rollout_cohort import bucket
from capsign_adapter.decide.rollout_reports import (
    WEIGHT,
    Bound,
    Breach,
    breach_of,
    liars,
    weighed,
)
from capsign_adapter.decide.rollout_samples import count
from capsign_adapter.decide.rollout_steps import due
from capsign_adapter.model.lifecycle import PaceEvent, RolloutEvent, RolloutStage
from capsign_adapter.model.rollouts import CanaryStep, Figures, Side
from capsign_evidence import leaf
from capsign_wire.adapter.v1 import evidence_pb2 as pb
from capsign_wire.types.v1 import failures_pb2 as reasons
from hypothesis import given
from hypothesis import strategies as st
from support.rollouts import ED25519, NOW, PLAN, rollout, version, world

FLEET = [f"spiffe://capsign.test/ns/n{number}/sa/app" for number in range(8)]
LIAR, *HONEST = FLEET
WHOLE = replace(PLAN, canary=(CanaryStep(100, 60_000),))
ROW = rollout(RolloutStage.CANARY, plan=WHOLE, figures=Figures(7, 7, after=Side(signed=10_000)))
MOST = 2**32 - 1
END = NOW + 60_000

Said = tuple[str, dict[str, int]]


def checks(who: str, verified: int, failed: int) -> Said:
    kind = {"kind": pb.AUDIT_KIND_VERIFICATIONS, "key_version": 2, "algorithm": ED25519}
    return who, {**kind, "verified": verified, "failed": failed}


def lost(who: str) -> Said:
    kind = {"kind": pb.AUDIT_KIND_OUTCOME, "outcome": reasons.OUTCOME_UNKNOWN}
    return who, {**kind, "reason": reasons.REASON_ANSWER_LATE}


def took(who: str, ms: int) -> Said:
    kind = {"kind": pb.AUDIT_KIND_OUTCOME, "outcome": reasons.OUTCOME_DONE}
    return who, {**kind, "elapsed_ms": ms}


def told(*said: Said, row=ROW):
    """The row after these reports, a batch each."""
    entries, batches = [], {}
    for index, (who, record) in enumerate(said, row.figures.through_leaf):
        batch = pb.AuditBatch(boot_id=bytes(16))
        batch.records.add(grant="orders-jwt", time_ms=NOW, **record)
        entries.append(
            leaf.agent_batch(NOW, bytes(32), who, bytes(16), 1, 1, bytes(32), closes=False)
        )
        batches[index] = (who, batch.SerializeToString())
    return replace(row, figures=count(row, {"orders-jwt"}, entries, batches))


def happens(row, now_ms: int = NOW, workloads: int = len(FLEET)):
    return due(row, replace(world(version(2), version(1)), workloads=workloads), now_ms)


SOUND = [checks(who, 200, 0) for who in HONEST]
FAILING = [checks(who, 100, 100) for who in HONEST[:2]] + [checks(HONEST[2], 200, 0)]


@pytest.mark.parametrize(
    "lie",
    [
        [checks(LIAR, 0, MOST)] * 3,
        [checks(LIAR, 0, 1)] * 50,
        [lost(LIAR)] * 2_000,
        [took(LIAR, 30_000)] * 2_000,
    ],
    ids=["thousands of millions failed", "a few failed", "no answers", "slow answers"],
)
def test_one_liar_does_not_roll_a_sound_rollout_back(lie):
    """What came in: one workload reported failures, as many as it liked, and the rollout of all
    others was taken back. Now its word alone pauses, at the end of the step.
    """
    quick = [took(who, 3) for who in HONEST for _ in range(50)]
    row = told(*SOUND, *quick, *lie)
    assert happens(row) is None
    assert happens(row, END) is PaceEvent.DOUBT


def test_one_liar_does_not_hide_a_cohort_that_fails():
    """What came in: four thousand million verifications from one workload, beside two hundred that
    failed elsewhere, and the rate was below its bound. Now they weigh as a thousand.
    """
    row = told(*FAILING, *[checks(LIAR, MOST, 0)] * 3)
    assert happens(row) is RolloutEvent.ROLL_BACK
    assert row.figures.after.verified == WEIGHT + 400


def test_where_its_weight_would_hide_a_cohort_it_pauses():
    """With a bound of 30 %, a thousand that verified weigh more than what failed: without them it
    is breached, and so it does not go on by itself.
    """
    triggers = replace(PLAN.triggers, verify_failure_ppm=300_000)
    row = replace(ROW, plan=replace(WHOLE, triggers=triggers))
    row = told(*FAILING, checks(LIAR, MOST, 0), row=row)
    assert happens(row) is None
    assert happens(row, END) is PaceEvent.DOUBT


def test_the_only_reporter_is_believed_when_nobody_said_otherwise_until_the_end():
    row = told(checks(HONEST[0], 0, 20))
    assert happens(row, END - 1) is None
    assert happens(row, END) is RolloutEvent.ROLL_BACK
    assert happens(row, workloads=1) is RolloutEvent.ROLL_BACK
    assert happens(told(checks(LIAR, 1, 0), row=row), END) is PaceEvent.DOUBT


def test_who_reports_much_keeps_its_rate():
    assert weighed(5, 1_000, 20) == (5, 1_000)
    assert weighed(5_000, 1_000_000, 20) == (5, WEIGHT)
    assert weighed(1, 1_000_000, 20) == (1, WEIGHT)
    assert weighed(0, MOST, 20) == (0, WEIGHT)
    assert weighed(MOST, MOST, 5_000) == (5_000, 5_000)


def test_reports_that_come_in_parts_weigh_as_one():
    parts = told(*[checks(LIAR, 300, 3)] * 10)
    assert parts.figures == replace(
        told(checks(LIAR, 3_000, 30)).figures, through_leaf=parts.figures.through_leaf
    )
    again = told(*[checks(LIAR, 300, 3)] * 5, row=told(*[checks(LIAR, 300, 3)] * 5))
    assert again == parts
    reported = parts.figures.after.reporters[bucket(ROW.id, LIAR)]
    assert (reported.verified, reported.failed) == (3_000, 30)


SAMPLES = st.tuples(st.integers(0, 300), st.integers(0, 300)).map(lambda two: (two[0], sum(two)))


@given(SAMPLES, st.lists(SAMPLES, max_size=6), SAMPLES, st.integers(0, 50), st.integers(0, 6))
def test_no_lie_of_one_turns_the_verdict_of_all_others_over(own, honest, lie, percent, place):
    bound = Bound(percent * 10_000, 20)
    bad, total = (sum(each) for each in zip(own, *honest, strict=True))
    truth = bound.is_above(bad, total)
    reporters = [*honest[:place], lie, *honest[place:]]
    heard = sum(1 for _, total in reporters if total)
    found = breach_of(own, reporters, heard, bound)
    assert found is not (Breach.NONE if truth else Breach.FIRM)


FEW = st.tuples(st.integers(0, 3), st.integers(1, 4)).map(lambda two: (two[0], sum(two)))


@given(
    SAMPLES,
    st.lists(FEW, min_size=18, max_size=30),
    st.tuples(SAMPLES, SAMPLES),
    st.integers(0, 60),
)
def test_no_lie_of_two_in_twenty_turns_it_over_either(own, honest, lies, percent):
    bound = Bound(percent * 10_000, 20)
    truth = bound.is_above(*(sum(each) for each in zip(own, *honest, strict=True)))
    reporters = [*lies, *honest]
    found = breach_of(own, reporters, len(reporters), bound)
    assert found is not (Breach.NONE if truth else Breach.FIRM)


def test_liars_need_more_than_a_tenth_of_those_who_report():
    """Two of a large fleet took a rollout back that was sound by the word of all others."""
    assert [liars(heard) for heard in (1, 8, 19, 20, 100)] == [1, 1, 1, 2, 10]
    bound, honest, lie = Bound(1_000, 20), [(0, 200)] * 90, (WEIGHT, WEIGHT)
    for many, found in ((1, Breach.DISPUTED), (10, Breach.DISPUTED), (11, Breach.FIRM)):
        assert breach_of((0, 0), [*honest, *[lie] * many], 90 + many, bound) is found
    hiding, failing = [(0, WEIGHT)] * 10, [(2, 200)] * 90
    assert breach_of((0, 0), [*failing, *hiding], 100, Bound(9_000, 20)) is Breach.DISPUTED


@given(
    SAMPLES,
    st.lists(SAMPLES, max_size=6),
    st.integers(0, 50),
    st.integers(0, 60),
)
def test_of_one_it_says_exactly_whether_it_depends_on_it(own, reporters, percent, needed):
    bound = Bound(percent * 10_000, needed)
    heard = sum(1 for _, total in reporters if total)
    bad, total = (sum(each) for each in zip(own, *reporters, strict=True))
    above = bound.is_above(bad, total)
    without = [bound.is_above(bad - b, total - t) for b, t in reporters if t]
    firm = above and all(without)
    one = Breach.UNDISPUTED if heard == 1 else Breach.DISPUTED
    expected = one if above else Breach.DISPUTED if any(without) else Breach.NONE
    assert breach_of(own, reporters, heard, bound) is (Breach.FIRM if firm else expected)


@given(st.lists(st.tuples(st.sampled_from(FLEET), st.integers(1, 900)), max_size=60))
def test_a_latency_bound_is_breached_as_the_percentile_says_where_nobody_has_too_much(times):
    row = told(*[took(who, ms) for who, ms in times])
    p99 = measures(row.figures.after, PLAN.triggers)[2]
    assert (p99.value > p99.bound) == (
        sum(each.slow for each in row.figures.after.reporters.values()) > len(times) // 100
    )
    assert verdict_of(row.figures.after, PLAN.triggers) is Verdict.HEALTHY
