from __future__ import annotations

from capsign_agent.handles.rate_limit import RateLimit
from hypothesis import given
from hypothesis import strategies as st


def test_starts_full_and_then_follows_the_rate() -> None:
    limit = RateLimit(10, 5, 0.0)
    assert limit.take(20, 0.0).granted == 5
    assert limit.take(1, 0.0) == (0, 100)
    assert limit.take(5, 0.25).granted == 2


def test_a_rate_of_zero_is_no_limit() -> None:
    assert RateLimit(0, 0, 0.0).take(10**6, 0.0) == (10**6, 0)


def test_a_clock_that_runs_backwards_adds_nothing() -> None:
    limit = RateLimit(1, 1, 100.0)
    assert limit.take(1, 100.0).granted == 1
    assert limit.take(1, 50.0).granted == 0
    assert limit.take(1, 100.9).granted == 0
    assert limit.take(1, 101.1).granted == 1


def test_renewal_keeps_what_was_used() -> None:
    limit = RateLimit(10, 10, 0.0)
    limit.take(10, 0.0)
    limit.change(10, 10, 0.0)
    assert limit.take(1, 0.0).granted == 0
    limit.change(1000, 1000, 0.0)
    assert limit.take(1, 0.0).granted == 0


@given(
    st.integers(1, 100),
    st.integers(0, 100),
    st.lists(st.tuples(st.floats(0, 5), st.integers(0, 50)), max_size=30),
)
def test_never_gives_more_than_rate_and_burst(
    rate: int, burst: int, steps: list[tuple[float, int]]
) -> None:
    """What the adapter would refuse must not leave the pod: its bucket holds `burst`, and once the
    agent's held `rate + burst`.
    """
    limit, now, given_out = RateLimit(rate, burst, 0.0), 0.0, 0
    for wait, wanted in steps:
        now += wait
        granted = limit.take(wanted, now).granted
        assert 0 <= granted <= wanted
        given_out += granted
        assert given_out <= max(burst, 1) + rate * now + 1e-6
