"""When a key is rotated by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
from capsign_adapter.decide.policy import Rotation
from capsign_adapter.decide.policy_rollouts import DAY_MS
from capsign_adapter.decide.rotation import is_rotation_due, rotation_due_ms
from hypothesis import given
from hypothesis import strategies as st
from support.rollouts import NOW, version

HOUR = 3_600_000
MIDNIGHT = NOW - NOW % DAY_MS
DAILY = Rotation(every_ms=90 * DAY_MS, jitter_ms=0)
NIGHTLY = replace(DAILY, window_begin_ms=22 * HOUR, window_end_ms=4 * HOUR)


def activated(at_ms: int):
    return version(1, activated_ms=at_ms)


def test_so_long_after_the_activation():
    assert rotation_due_ms(activated(NOW), DAILY) == NOW + 90 * DAY_MS
    assert not is_rotation_due(activated(NOW), DAILY, NOW + 90 * DAY_MS - 1)
    assert is_rotation_due(activated(NOW), DAILY, NOW + 90 * DAY_MS)


@pytest.mark.parametrize(("hour", "begins"), [(3, 3), (4, 22), (12, 22), (21, 22), (22, 22)])
def test_a_window_over_midnight(hour, begins):
    found = rotation_due_ms(activated(MIDNIGHT + hour * HOUR), NIGHTLY)
    assert found == MIDNIGHT + 90 * DAY_MS + begins * HOUR


def test_what_was_missed_waits_for_the_next_window():
    row = activated(MIDNIGHT)
    noon = MIDNIGHT + 200 * DAY_MS + 12 * HOUR
    assert not is_rotation_due(row, NIGHTLY, noon)
    assert is_rotation_due(row, NIGHTLY, noon + 10 * HOUR)


@given(st.integers(1, 10**6), st.integers(0, 10**9))
def test_the_jitter_is_of_the_version_and_bounded(number, jitter):
    rotation = replace(DAILY, jitter_ms=jitter)
    row = version(number, activated_ms=NOW)
    found = rotation_due_ms(row, rotation)
    assert 0 <= found - NOW - 90 * DAY_MS <= jitter
    assert found == rotation_due_ms(row, rotation)
