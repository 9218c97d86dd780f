from __future__ import annotations

from capsign_agent.handles.rate import Bucket
from hypothesis import given
from hypothesis import strategies as st


def test_starts_full_and_then_follows_the_rate() -> None:
    bucket = Bucket(rate=10, burst=5, now=0.0)
    assert bucket.take(20, 0.0) == 15
    assert bucket.take(1, 0.0) == 0
    assert bucket.wait_ms(1) == 100
    assert bucket.take(5, 0.25) == 2


def test_a_rate_of_zero_is_no_limit() -> None:
    bucket = Bucket(0, 0, 0.0)
    assert bucket.take(10**6, 0.0) == 10**6
    assert bucket.wait_ms(1) == 0


def test_a_clock_that_runs_backwards_adds_nothing() -> None:
    bucket = Bucket(1, 0, 100.0)
    assert bucket.take(1, 100.0) == 1
    assert bucket.take(1, 50.0) == 0
    assert bucket.take(1, 50.9) == 0
    assert bucket.take(1, 51.1) == 1


def test_renewal_keeps_what_was_used() -> None:
    bucket = Bucket(10, 0, 0.0)
    bucket.take(10, 0.0)
    bucket.change(10, 0, 0.0)
    assert bucket.take(1, 0.0) == 0
    bucket.change(1000, 0, 0.0)
    assert bucket.take(1, 0.0) == 0


@given(
    st.integers(1, 100),
    st.integers(0, 100),
    st.lists(st.tuples(st.floats(0, 5), st.integers(0, 50)), max_size=30),
)
def test_never_gives_more_than_rate_and_burst(
    rate: int, burst: int, steps: list[tuple[float, int]]
) -> None:
    bucket, now, given_out = Bucket(rate, burst, 0.0), 0.0, 0
    for wait, wanted in steps:
        now += wait
        granted = bucket.take(wanted, now)
        assert 0 <= granted <= wanted
        given_out += granted
        assert given_out <= rate + burst + rate * now + 1e-6
