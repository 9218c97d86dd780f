"""Triggers: at their bound, just above it, and below the least number of samples."""

from __future__ import annotations

from dataclasses import replace

import pytest
from capsign_adapter.decide.rollout_analysis import Verdict, measures, p99_ms, verdict_of
from capsign_adapter.model.rollouts import LATENCY_BOUNDS_MS, Side
from hypothesis import given
from hypothesis import strategies as st
from support.rollouts import TRIGGERS

ENOUGH = Side(signed=1000, verified=1000)
BUCKETS = len(LATENCY_BOUNDS_MS) + 1


def latencies(**counts: int) -> tuple[int, ...]:
    found = [0] * BUCKETS
    for name, count in counts.items():
        found[int(name.removeprefix("b"))] = count
    return tuple(found)


CASES = [
    ("healthy", ENOUGH, Verdict.HEALTHY),
    ("errors at the bound", Side(signed=99, refused=1), Verdict.HEALTHY),
    ("errors above it", Side(signed=98, refused=2), Verdict.FAILED),
    ("no answers above it", Side(signed=98, unanswered=2), Verdict.FAILED),
    ("errors below the least samples", Side(signed=90, refused=9), Verdict.INCONCLUSIVE),
    ("nothing at all", Side(), Verdict.INCONCLUSIVE),
    ("one below the least", Side(signed=99), Verdict.INCONCLUSIVE),
    ("exactly the least", Side(signed=100), Verdict.HEALTHY),
    (
        "verifications at the bound",
        replace(ENOUGH, verified=999, verify_failed=1),
        Verdict.HEALTHY,
    ),
    ("verifications above it", replace(ENOUGH, verified=998, verify_failed=2), Verdict.FAILED),
    ("too few verifications", replace(ENOUGH, verified=0, verify_failed=19), Verdict.HEALTHY),
    ("just enough of them", replace(ENOUGH, verified=19, verify_failed=1), Verdict.FAILED),
    (
        "verifications fail and calls are few",
        Side(signed=3, verified=10, verify_failed=10),
        Verdict.FAILED,
    ),
    ("a p99 at the bound", replace(ENOUGH, latencies=latencies(b16=1000)), Verdict.HEALTHY),
    ("a p99 above it", replace(ENOUGH, latencies=latencies(b3=980, b17=20)), Verdict.FAILED),
    ("one slow of a hundred", replace(ENOUGH, latencies=latencies(b3=99, b30=1)), Verdict.HEALTHY),
    ("too few were timed", replace(ENOUGH, latencies=latencies(b30=99)), Verdict.HEALTHY),
]


@pytest.mark.parametrize(
    ("side", "verdict"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_each_trigger_at_its_bound_and_below_its_samples(side, verdict):
    assert verdict_of(side, replace(TRIGGERS, p99_ms=362)) == verdict


def test_verifications_may_be_required():
    required = replace(TRIGGERS, verifications_required=True)
    assert verdict_of(replace(ENOUGH, verified=19), required) is Verdict.INCONCLUSIVE
    assert verdict_of(replace(ENOUGH, verified=20), required) is Verdict.HEALTHY


def test_where_the_verifiers_of_others_speak_and_those_of_the_cohort_are_silent_it_is_not_healthy():
    silent = Side(signed=400)
    others = Side(signed=1000, verified=100)
    assert verdict_of(silent, TRIGGERS, others) is Verdict.INCONCLUSIVE
    assert verdict_of(replace(silent, verified=20), TRIGGERS, others) is Verdict.HEALTHY


@pytest.mark.parametrize(
    ("signed", "others"),
    [
        (399, Side(signed=1000, verified=100)),  # 39.9 are to be expected, less than twice 20
        (400, Side(signed=1000, verified=99)),
        (400, Side(signed=1000)),
        (400, Side(verified=1000)),
    ],
)
def test_few_verifications_are_no_silence_where_few_are_to_be_expected(signed, others):
    assert verdict_of(Side(signed=signed), TRIGGERS, others) is Verdict.HEALTHY


def test_a_bound_of_nothing_lets_nothing_pass_and_no_bound_everything():
    strict = replace(TRIGGERS, error_ppm=0)
    assert verdict_of(Side(signed=10**9, refused=1), strict) is Verdict.FAILED
    slow = replace(ENOUGH, latencies=latencies(b30=1000))
    assert verdict_of(slow, replace(TRIGGERS, p99_ms=0)) is Verdict.HEALTHY


def test_without_a_least_number_of_samples_nothing_is_inconclusive():
    none = replace(TRIGGERS, min_samples=0, min_verifications=0)
    assert verdict_of(Side(), none) is Verdict.HEALTHY


@given(st.lists(st.integers(0, 50), min_size=BUCKETS, max_size=BUCKETS))
def test_the_percentile_is_that_of_the_sorted_samples(counts):
    bounds = [*LATENCY_BOUNDS_MS, LATENCY_BOUNDS_MS[-1] + 1]
    samples = [bound for bound, count in zip(bounds, counts, strict=True) for _ in range(count)]
    expected = sorted(samples)[-(-len(samples) * 99 // 100) - 1] if samples else 0
    assert p99_ms(Side(latencies=tuple(counts))) == expected


def test_measures_say_what_they_lack():
    names = {each.name: (each.samples, each.needed) for each in measures(Side(signed=3), TRIGGERS)}
    assert names == {"error rate": (3, 100), "verify-failure rate": (0, 20), "p99": (0, 100)}
