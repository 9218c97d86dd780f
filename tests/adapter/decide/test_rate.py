"""The token bucket, against what a rate means: never more than burst + rate x time."""

from __future__ import annotations

import pytest
from capsign_adapter.decide.rate import Buckets, spend
from capsign_wire.token_bucket import Bucket, Taken, full, take
from hypothesis import given
from hypothesis import strategies as st

calls = st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 50)), min_size=1, max_size=40)


@given(st.integers(1, 1000), st.integers(1, 100), calls)
def test_it_never_grants_more_than_rate_and_burst_allow(per_second, burst, steps):
    bucket, now, granted = full(burst, 0), 0, 0
    for wait, count in steps:
        now += wait
        bucket, taken = take(bucket, per_second, burst, count, now)
        granted += taken.granted
        assert 0 <= taken.granted <= count
        assert granted <= burst + per_second * now / 1000


@given(st.integers(1, 1000), st.integers(1, 100), st.integers(0, 3000))
def test_after_the_wait_it_names_one_more_passes_and_not_a_millisecond_sooner(
    per_second, burst, pause
):
    bucket, _ = take(full(burst, 0), per_second, burst, burst, 0)
    bucket, taken = take(bucket, per_second, burst, burst + 1, pause)
    assert taken.retry_after_ms >= 1
    at = pause + taken.retry_after_ms
    assert take(bucket, per_second, burst, 1, at)[1] == Taken(1, 0)
    assert take(bucket, per_second, burst, 1, at - 1)[1].granted == 0


@given(st.integers(1, 1000), st.integers(1, 100), calls)
def test_what_is_owed_is_paid_before_anything_passes(per_second, burst, steps):
    """One call may be worth many, and passes as soon as one would: else those worth one would
    always be before it.
    """
    bucket, now, spent = full(burst, 0), 0, 0
    for wait, count in steps:
        now += wait
        bucket, taken = spend(bucket, per_second, burst, count, now)
        if taken.granted:
            assert taken == Taken(count, 0)
            assert spent + 1 <= burst + per_second * now / 1000
            spent += count
        else:
            assert (
                spend(bucket, per_second, burst, count, now + taken.retry_after_ms)[1].granted
                == count
            )
            assert not spend(bucket, per_second, burst, count, now + taken.retry_after_ms - 1)[
                1
            ].granted


def test_a_clock_that_runs_backwards_adds_nothing_and_takes_nothing():
    bucket, _ = take(full(5, 10_000), 1, 5, 5, 10_000)
    bucket, taken = take(bucket, 1, 5, 1, 2_000)
    assert taken.granted == 0
    assert bucket == Bucket(0, 10_000)


def test_names_do_not_share_a_bucket_and_a_rate_of_0_is_no_limit():
    buckets = Buckets(lambda: 0)
    assert buckets.take("w", "g", 1, 2, 3) == Taken(2, 1000)
    assert buckets.take("w", "h", 1, 2, 2) == Taken(2, 0)
    assert buckets.take("v", "g", 1, 2, 2) == Taken(2, 0)
    assert buckets.take("w", "g", 0, 0, 10_000) == Taken(10_000, 0)


def test_buckets_fill_by_the_clock_they_were_given():
    now = 0
    buckets = Buckets(lambda: now)
    assert buckets.take("w", "g", 1, 2, 3) == Taken(2, 1000)
    now = 999
    assert buckets.take("w", "g", 1, 2, 1) == Taken(0, 1)
    now = 1000
    assert buckets.take("w", "g", 1, 2, 1) == Taken(1, 0)


@pytest.mark.parametrize("names", [10, 1000])
def test_the_number_of_buckets_is_bounded(names):
    buckets = Buckets(lambda: 0, capacity=8)
    for index in range(names):
        buckets.take(f"w{index}", "g", 1, 1, 1)
    assert len(buckets) == 8
