"""What waits, and how long it may: without a server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from capsign_adapter.decide.rate import Buckets
from capsign_adapter.front.call_deadlines import (
    ANSWER_SECONDS,
    REQUEST_SECONDS,
    STREAM_SECONDS,
    CallDeadlines,
)
from capsign_adapter.front.peer_quota import PeerQuota
from support.adapter_rig import rules


@dataclass(eq=False)
class Call:
    """Stands for the context of a call."""

    cancelled: bool = False
    over: Callable[[], object] = lambda: None

    def cancel(self) -> bool:
        self.cancelled = True
        return True

    def add_callback(self, over: Callable[[], object]) -> bool:
        self.over = over
        return True


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def room(clock):
    return CallDeadlines(clock)


def test_what_has_waited_for_its_time_is_ended_and_nothing_else(room, clock):
    early, late, done = Call(), Call(), Call()
    room.begin(early, 5.0)
    room.begin(late, 30.0)
    room.begin(done, 5.0)
    room.end(done)
    clock.now += 5.1
    assert room.sweep() == 1
    assert (early.cancelled, late.cancelled, done.cancelled) == (True, False, False)


def test_relief_ends_what_has_waited_for_so_long_already(room, clock):
    old, young = Call(), Call()
    room.begin(old, 30.0)
    clock.now += 0.4
    room.begin(young, 30.0)
    clock.now += 0.2
    assert room.cancel_older_than(0.5) == 1
    assert (old.cancelled, young.cancelled) == (True, False)
    assert room.cancel_older_than(0.0) == 2
    assert young.cancelled


def test_a_call_whose_request_does_not_come_is_ended(room, clock):
    call = Call()
    with room.of(call):
        clock.now += REQUEST_SECONDS + 0.1
        assert room.sweep() == 1
    assert call.cancelled


def test_a_call_whose_answer_nobody_takes_is_ended_and_keeps_its_place_until_then(room, clock):
    """Its window is closed: the place was given back with the answer, and each such call held it
    anew.
    """
    call, left = Call(), []
    with room.answering(call, lambda: left.append(call)):
        clock.now += 10 * ANSWER_SECONDS  # while it is worked on nobody waits for its caller
        assert room.sweep() == 0
    assert not left
    clock.now += ANSWER_SECONDS + 0.1
    assert room.sweep() == 1
    assert call.cancelled
    call.over()  # as gRPC tells it
    assert left == [call]
    assert room.sweep() == 0


def test_a_stream_that_is_silent_for_long_is_ended(clock):
    """It may hold half a message. While its batch is worked on it does not wait."""
    places = PeerQuota(rules, 16, Buckets(lambda: 0), 100)
    places.deadlines = CallDeadlines(clock)
    call = Call()

    def silent():
        yield "first"
        clock.now += STREAM_SECONDS + 0.1
        assert places.sweep() == 1
        yield "second"

    for request in places.each(silent(), call):
        if request == "first":
            clock.now += 10 * STREAM_SECONDS  # a slow store
            assert places.sweep() == 0
            assert not call.cancelled
    assert call.cancelled
    assert len(places.deadlines) == 0


def test_a_stream_whose_answers_nobody_takes_is_ended(clock):
    """An answer without a signature is in nobody's lease: it lay there for ever."""
    places = PeerQuota(rules, 16, Buckets(lambda: 0), 100)
    places.deadlines = CallDeadlines(clock)
    call = Call()
    for answer in places.taken(["first", "second"], call):
        clock.now += ANSWER_SECONDS + (0.1 if answer == "second" else -0.1)
        assert places.sweep() == (answer == "second")
    assert call.cancelled
    assert len(places.deadlines) == 0
