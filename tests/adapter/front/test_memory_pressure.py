"""When memory is short, and for whom there is no patience then."""

from __future__ import annotations

from itertools import pairwise

import pytest
from capsign_adapter.front.call_deadlines import CallDeadlines
from capsign_adapter.front.capacity import MIB
from capsign_adapter.front.memory_pressure import (
    LONGEST_NO_USE_MS,
    NO_USE_MS,
    TRIM_MS,
    YOUNG_SECONDS,
    LoadShedder,
    MemoryPressure,
    memory_budget,
    resident,
)

ALL = 1000 * MIB


@pytest.mark.parametrize(
    ("size", "patience"),
    [(0, None), (600, None), (601, YOUNG_SECONDS), (750, YOUNG_SECONDS), (751, 0.0), (2000, 0.0)],
)
def test_the_larger_the_process_the_less_patience(size, patience):
    assert MemoryPressure(ALL).tolerated_wait(size * MIB, 0) == patience


def test_where_ending_calls_was_of_no_use_it_is_not_done_for_a_while():
    """The memory is not theirs: honest streams would be ended for nothing, over and over."""
    pressure = MemoryPressure(ALL)
    pressure.relieved(700 * MIB, 690 * MIB, 0)
    assert pressure.tolerated_wait(700 * MIB, NO_USE_MS - 1) is None
    assert pressure.tolerated_wait(760 * MIB, NO_USE_MS - 1) == 0.0
    assert pressure.tolerated_wait(700 * MIB, NO_USE_MS) == YOUNG_SECONDS


def test_where_it_is_never_of_use_it_is_done_ever_more_rarely():
    """A token library of 400 MiB is there for good. What comes on top of it is still somebody's."""
    pressure, now, tried = MemoryPressure(ALL), 0, []
    while now < 3600_000:
        if pressure.tolerated_wait(700 * MIB, now) is not None:
            tried.append(now)
            pressure.relieved(700 * MIB, 700 * MIB, now)
        assert pressure.tolerated_wait(740 * MIB, now) == YOUNG_SECONDS
        now += 1000
    assert tried[:4] == [0, NO_USE_MS, 3 * NO_USE_MS, 7 * NO_USE_MS]
    assert max(then - before for before, then in pairwise(tried)) == LONGEST_NO_USE_MS
    pressure.relieved(900 * MIB, 700 * MIB, now)
    pressure.relieved(700 * MIB, 700 * MIB, now)
    assert pressure.tolerated_wait(700 * MIB, now + NO_USE_MS) == YOUNG_SECONDS
    for _ in range(9):
        pressure.relieved(800 * MIB, 800 * MIB, now)
    assert pressure.tolerated_wait(800 * MIB, now + NO_USE_MS) == 0.0


def test_where_it_was_of_use_it_is_done_again():
    pressure = MemoryPressure(ALL)
    pressure.relieved(900 * MIB, 400 * MIB, 0)
    assert pressure.tolerated_wait(700 * MIB, 1) == YOUNG_SECONDS


def test_the_budget_is_that_of_the_control_group_or_what_is_needed():
    assert memory_budget(512 * MIB, 512, 256 * 1024) == 512 * MIB
    assert memory_budget(None, 32, 256 * 1024) == 432 * MIB


class Call:
    cancelled = 0

    def cancel(self) -> bool:
        self.cancelled += 1
        return True


def test_a_look_ends_what_waits_where_the_process_is_too_large():
    room, call = CallDeadlines(), Call()
    room.begin(call, 30.0)
    assert LoadShedder(MemoryPressure(ALL), [room], lambda: 0, lambda: 500 * MIB).look() == 0
    relief = LoadShedder(MemoryPressure(ALL), [room], lambda: 0, lambda: 800 * MIB)
    assert relief.look() == 1
    assert call.cancelled == 1
    assert relief.look() == 0  # it was of no use, and is not done again at once


def test_far_from_short_there_are_fewer_looks():
    sizes = iter([299, 299, 301, 800, 200, 200, 200])
    relief = LoadShedder(MemoryPressure(1000), [], lambda: 0, lambda: next(sizes))
    told = []
    for _ in range(5):
        relief.look()
        told.append(relief.at_ease)
    assert told == [True, False, False, False, True], "not beside calls that were just ended"


def test_what_workloads_hold_ends_no_call_of_people_as_it_comes():
    """With memory held very short a revocation was cancelled if it came in the moment of a look,
    and its outcome was unknown.
    """
    now = [100.0]
    theirs, people = CallDeadlines(lambda: now[0]), CallDeadlines(lambda: now[0])
    attack, revocation, idle = Call(), Call(), Call()
    people.begin(idle, 30.0)
    now[0] += YOUNG_SECONDS
    theirs.begin(attack, 30.0)
    people.begin(revocation, 30.0)
    assert (
        LoadShedder(
            MemoryPressure(ALL), [theirs], lambda: 0, lambda: 800 * MIB, people=[people]
        ).look()
        == 2
    )
    assert (attack.cancelled, revocation.cancelled, idle.cancelled) == (1, 0, 1)


def test_what_was_freed_goes_back_when_it_is_a_quarter_of_all():
    """After a crowd the C library keeps it, and the process looks as large as it was at its
    worst.
    """
    now, sizes = [0], [100 * MIB]
    trimmed = []
    relief = LoadShedder(
        MemoryPressure(ALL), [], lambda: now[0], lambda: sizes[0], lambda: trimmed.append(now[0])
    )
    for now[0], sizes[0] in (
        (TRIM_MS, 120 * MIB),
        (2 * TRIM_MS, 130 * MIB),
        (2 * TRIM_MS + 1, 200 * MIB),
        (3 * TRIM_MS, 150 * MIB),
    ):
        relief.look()
    assert trimmed == [2 * TRIM_MS]


def test_the_size_of_this_process_is_seen():
    assert 10 * MIB < resident() < 64 << 30
