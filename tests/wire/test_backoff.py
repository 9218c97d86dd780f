"""How long processes wait between attempts."""

from __future__ import annotations

import pytest
from capsign_wire.backoff import Backoff
from hypothesis import given
from hypothesis import strategies as st

BACKOFF = Backoff(0.1, 5.0)


def test_it_doubles_until_the_longest():
    delays = [BACKOFF.delay_s(failures, spread=1) for failures in range(9)]
    assert delays == pytest.approx([0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])


@given(st.integers(min_value=1, max_value=10**9))
def test_chance_takes_between_half_and_the_whole(failures: int):
    """Those that failed together do not come back together, and a long outage overflows nothing."""
    whole = BACKOFF.delay_s(failures, spread=1)
    assert BACKOFF.delay_s(failures, spread=0) == pytest.approx(whole / 2)
    assert whole / 2 <= BACKOFF.delay_s(failures) <= whole <= BACKOFF.most_s
