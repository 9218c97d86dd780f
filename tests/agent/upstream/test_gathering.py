"""A call that comes while a batch is under way waits for company, for a moment at most."""

from __future__ import annotations

from typing import Any

import pytest
from capsign_agent.handles.held_handle import HeldHandle
from capsign_agent.handles.rate_limit import RateLimit
from capsign_agent.handles.scope import HandleScope
from capsign_agent.upstream.call import Call
from capsign_agent.upstream.coalesce import Coalescer
from capsign_agent.upstream.gathering import ENOUGH_ITEMS, MOST_S, PART, Gathering
from capsign_wire.bounds import MAX_BATCH_ITEMS


class Unanswered:
    def done(self) -> bool:
        return False


def held(name: str) -> HeldHandle:
    one = HeldHandle(name, "tokens", RateLimit(0, 0, 0.0))
    one.token = b"token of " + name.encode()
    return one


APP, OTHER = held("app"), held("other")


def call(items: int = 1, of: HeldHandle = APP) -> Call:
    answer: Any = Unanswered()
    intents = [b"%016d" % number for number in range(items)]
    return Call(HandleScope(of, 1, None, b""), "", intents, [b"digest"] * items, answer)


class Timers:
    """What was to be called later; the test says when it is time."""

    def __init__(self) -> None:
        self.due: list[Any] = []
        self.seconds: list[float] = []

    def later(self, seconds, act):
        self.seconds.append(seconds)
        self.due.append(act)
        timers = self.due

        class Timer:
            def cancel(self):
                timers.remove(act)

        return Timer()

    def fire(self) -> None:
        for act in [self.due.pop() for _ in self.due[:]]:
            act()


class Stream:
    load = 0

    def __init__(self, queue: Coalescer) -> None:
        self.queue = queue
        self.woken = 0
        queue.park(self)

    def wake(self) -> None:
        self.woken += 1

    def take(self) -> int:
        """Take a batch, or rest; returns how many items it has."""
        batch = self.queue.take(lambda lost, why: None, self)
        if batch is None:
            self.queue.park(self)
        return batch.items if batch is not None else 0


@pytest.fixture
def timers():
    return Timers()


@pytest.fixture
def queue(timers):
    return Coalescer(16384, 1 << 24, lambda: None, timers.later)


@pytest.fixture
def streams(queue):
    """Three, of which the last has a batch under way, and had one before."""
    streams = [Stream(queue) for _ in range(3)]
    queue.submit(call())
    assert (streams[2].take(), streams[2].take()) == (1, 0)
    queue.submit(call())
    assert streams[2].take() == 1
    assert woken(streams) == [0, 0, 2]
    streams[2].woken = 0
    return streams


def woken(streams) -> list[int]:
    return [one.woken for one in streams]


def test_a_call_that_is_alone_goes_at_once(queue, timers):
    stream = Stream(queue)
    queue.submit(call())
    assert (stream.woken, timers.due) == (1, [])


def test_of_calls_that_come_together_only_the_first_wakes_a_stream(queue, timers):
    streams = [Stream(queue), Stream(queue)]
    for _ in range(5):
        queue.submit(call())
    assert (woken(streams), timers.due) == ([0, 1], [])
    assert streams[1].take() == 5


def test_while_a_batch_is_under_way_a_call_waits_for_it_to_come_back(queue, streams, timers):
    for _ in range(3):
        queue.submit(call())
    assert (woken(streams), len(timers.due)) == ([0, 0, 0], 1)
    assert streams[2].take() == 3
    assert not timers.due  # nobody waits any more


def test_or_for_a_moment(queue, streams, timers):
    for _ in range(3):
        queue.submit(call())
    timers.fire()
    assert woken(streams) == [0, 1, 0]
    assert streams[1].take() == 3
    assert all(0 < seconds <= MOST_S for seconds in timers.seconds)


def test_or_until_there_are_enough(queue, streams):
    for _ in range(ENOUGH_ITEMS - 1):
        queue.submit(call())
    assert woken(streams) == [0, 0, 0]
    queue.submit(call())
    assert woken(streams) == [0, 1, 0]
    assert streams[1].take() == ENOUGH_ITEMS


def test_one_large_call_does_not_wait(queue, streams, timers):
    queue.submit(call(ENOUGH_ITEMS))
    assert (woken(streams), timers.due) == ([0, 1, 0], [])


def test_while_several_sockets_sign_nobody_waits_for_company(queue, streams, timers):
    queue.submit(call(of=OTHER))
    queue.submit(call(of=APP))
    assert sum(woken(streams)) == 2
    assert not timers.due


def test_what_does_not_fit_into_the_batch_is_offered_to_the_next(queue, streams):
    queue.submit(call(MAX_BATCH_ITEMS))
    queue.submit(call(MAX_BATCH_ITEMS))
    assert woken(streams) == [0, 1, 0]
    assert streams[1].take() == MAX_BATCH_ITEMS
    assert woken(streams) == [1, 1, 0]


@pytest.mark.parametrize("which", [1, 2])
def test_a_stream_that_ends_leaves_nobody_waiting(queue, streams, timers, which):
    """The one that was woken, or the one whose batch was waited for."""
    if which == 1:
        queue.submit(call(ENOUGH_ITEMS))
    else:
        queue.submit(call())
    queue.unpark(streams[which])
    queue.gone(streams[which])
    assert woken(streams)[0] + woken(streams)[1] - (which == 1) == 1


def test_the_wait_is_a_part_of_what_batches_took_lately():
    one, now = Gathering(), 0.0
    assert one.wait_s(1) == 0.0
    for _ in range(100):
        one.took("stream", now)
        now += 0.002
        one.back("stream", now)
    assert one.wait_s(1) == 0.0  # nothing is under way
    one.took("stream", now)
    assert one.wait_s(1) == pytest.approx(0.002 * PART, rel=0.01)
    assert one.wait_s(ENOUGH_ITEMS) == 0.0


def test_what_hangs_or_broke_holds_nobody_up_for_long():
    one = Gathering()
    one.took("slow", 0.0)
    one.back("slow", 60.0)
    one.took("slow", 61.0)
    assert one.wait_s(1) == MOST_S
    one.gone("slow")
    assert one.wait_s(1) == 0.0
