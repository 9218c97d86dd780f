"""When a refused PIN is tried again: rarely where it worked before, and never where the token could
lock.
"""

from __future__ import annotations

import itertools

from capsign_adapter.token.pin_trials import PAUSES_S, PinTrials


def tries(trials: PinTrials, hours: int, mark: object = 1, *, final: bool = False) -> list[int]:
    """The seconds at which it asks a token that goes on refusing, when it is asked every second."""
    asked = []
    for second in range(hours * 3600):
        if trials.may_try(second, mark):
            asked.append(second)
            trials.refused(second, mark, final=final)
    return asked


def test_one_that_never_worked_is_tried_once():
    assert tries(PinTrials(), 24) == [0]


def test_one_that_worked_is_tried_again_ever_more_rarely():
    trials = PinTrials()
    trials.accepted()
    asked = tries(trials, 6)
    pauses = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert pauses[: len(PAUSES_S)] == list(PAUSES_S)
    assert set(pauses[len(PAUSES_S) :]) == {PAUSES_S[-1]}


def test_never_where_the_next_wrong_one_locks():
    trials = PinTrials()
    trials.accepted()
    assert tries(trials, 48, final=True) == [0]


def test_a_file_that_was_written_anew_is_tried_at_once():
    trials = PinTrials()
    trials.accepted()
    trials.refused(0.0, "old", final=False)
    assert not trials.may_try(1.0, "old")
    assert trials.may_try(1.0, "new")
    trials.refused(1.0, "new", final=False)
    assert not trials.may_try(2.0, "new")
    trials.accepted()
    assert trials.may_try(2.0, "new")


def test_a_file_that_was_written_anew_does_not_unlock():
    trials = PinTrials()
    trials.accepted()
    trials.refused(0.0, "old", final=True)
    assert not trials.may_try(10**9, "new")
