"""Who may read a message now."""

from __future__ import annotations

from collections import Counter

import pytest
from capsign_agent.front.read_slots import GRACE_S, MOST_IDLE_S, MOST_S, QUIET_S, Reader, ReadSlots
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule


class Asked(Reader):
    """A reader, and what happened to it."""

    def __init__(self, socket: str, *, stream: bool = False) -> None:
        super().__init__(socket, (lambda: not self.calls) if stream else None)
        self.went = self.ended = 0
        self.calls = 0

    def go(self) -> None:
        self.went += 1

    def end(self) -> None:
        self.ended += 1


def taken(
    slots: ReadSlots, socket: str, count: int, now: float = 0.0, *, stream: bool = False
) -> list[Asked]:
    some = [Asked(socket, stream=stream) for _ in range(count)]
    assert all(slots.ask(one, now) for one in some)
    return some


def test_each_socket_has_a_turn_of_its_own_and_the_others_are_for_whoever_comes() -> None:
    slots = ReadSlots(2, 6)
    taken(slots, "greedy", 1 + slots.shared)
    late = Asked("greedy")
    assert not slots.ask(late, 0.0)
    taken(slots, "other", 1)
    assert slots.reading == slots.most


def test_a_turn_that_comes_free_goes_to_the_socket_that_has_the_fewest() -> None:
    slots = ReadSlots(2, 6)
    first, *_ = taken(slots, "greedy", 1 + slots.shared)
    taken(slots, "other", 1)
    greedy, other = Asked("greedy"), Asked("other")
    assert not slots.ask(greedy, 0.0)
    assert not slots.ask(other, 0.0)
    slots.done(first, 0.0)
    assert (greedy.went, other.went) == (0, 1)


def test_half_a_message_is_ended_in_time_though_nobody_waits() -> None:
    slots = ReadSlots(1, 7)
    (half,) = taken(slots, "app", 1)
    slots.look(MOST_S)
    assert half.ended == 0
    slots.look(MOST_S + 0.1)
    slots.look(MOST_S + 0.2)
    assert half.ended == 1
    assert slots.reading == 1  # what has come of it is in memory until it is gone
    slots.done(half, MOST_S + 0.3)
    assert slots.reading == 0


def test_a_stream_may_idle_while_nobody_waits_but_not_for_ever() -> None:
    slots = ReadSlots(1, 7)
    (idle,) = taken(slots, "app", 1, stream=True)
    slots.look(MOST_IDLE_S)
    assert idle.ended == 0
    assert slots.ask(idle, MOST_IDLE_S)  # a message came
    slots.look(2 * MOST_IDLE_S)
    assert idle.ended == 0
    slots.look(2 * MOST_IDLE_S + 0.1)
    assert idle.ended


def test_a_stream_on_which_nothing_is_asked_makes_room_for_who_waits() -> None:
    slots = ReadSlots(1, 7)
    streams = taken(slots, "app", 1 + slots.shared, stream=True)
    for one in streams[1:]:
        one.calls = 1
    late = Asked("app", stream=True)
    assert not slots.ask(late, 0.0)
    slots.look(QUIET_S / 2)
    assert not late.went
    slots.look(QUIET_S)
    slots.look(QUIET_S)
    assert not late.went
    slots.done(streams[0], QUIET_S)
    assert late.went == 1
    assert [one.ended for one in streams] == [1] + [0] * slots.shared


def test_halves_of_one_socket_keep_the_shared_turns_from_another_for_a_moment_only() -> None:
    slots = ReadSlots(2, 6)
    halves = taken(slots, "greedy", 1 + slots.shared)
    taken(slots, "other", 1)
    more = Asked("other")
    assert not slots.ask(more, 0.0)
    slots.look(GRACE_S)
    assert not more.went
    slots.look(GRACE_S + 0.01)
    [ended] = [one for one in halves if one.ended]
    slots.done(ended, GRACE_S + 0.02)
    assert more.went == 1


def test_who_waits_too_long_is_told() -> None:
    slots = ReadSlots(1, 7)
    taken(slots, "app", 1 + slots.shared, now=1.0)
    late = Asked("app")
    slots.ask(late, 0.5)
    slots.look(0.5 + MOST_S + 0.1)
    assert late.ended
    assert not slots.contended


def test_a_stream_that_goes_on_lets_others_go_first() -> None:
    slots = ReadSlots(1, 7)
    busy, *_ = taken(slots, "app", 1 + slots.shared, stream=True)
    late = Asked("app")
    slots.ask(late, 0.0)
    assert not slots.ask(busy, 0.1)
    assert late.went == 1
    slots.done(late, 0.2)
    assert busy.went == 1


def test_who_was_told_to_end_does_not_wait_again() -> None:
    """Its call came in the moment in which its stream was ended. It gave its turn to another and
    stood in the queue, which cannot be told to end twice: whoever looked for those that wait too
    long came to no end, and the agent with it.
    """
    slots = ReadSlots(1, 7)
    idle = taken(slots, "app", 1 + slots.shared, stream=True)
    late = Asked("app")
    slots.ask(late, QUIET_S)
    slots.look(QUIET_S)
    [ended] = [one for one in idle if one.ended]
    assert slots.ask(ended, QUIET_S + 0.01)
    assert not late.went
    slots.look(QUIET_S + MOST_S + 0.1)
    assert not slots.contended


class Machine(RuleBasedStateMachine):
    """Any order of events: slots are never more than there are, every socket that waits has one,
    nobody is forgotten.
    """

    def __init__(self) -> None:
        super().__init__()
        self.slots = ReadSlots(3, 5)
        self.now = 0.0
        self.known: list[Asked] = []

    @rule(socket=st.sampled_from("abc"), stream=st.booleans())
    def ask(self, socket: str, stream: bool) -> None:
        one = Asked(socket, stream=stream)
        self.slots.ask(one, self.now)
        self.known.append(one)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.known))
        if one.reading:
            self.slots.ask(one, self.now)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.known))
        self.slots.done(one, self.now)
        self.known.remove(one)

    @rule(seconds=st.floats(0, 2 * MOST_S))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.slots.look(self.now)
        self.known = [one for one in self.known if one.reading or one.waiting]

    @invariant()
    def bounded_and_nobody_without_a_turn_that_is_free(self) -> None:
        reading = Counter(one.socket for one in self.known if one.reading)
        waiting = {one.socket for one in self.known if one.waiting}
        assert self.slots.reading == reading.total()
        assert sum(count - 1 for count in reading.values()) <= self.slots.shared
        assert all(one.reading != one.waiting for one in self.known)
        assert self.slots.contended == bool(waiting)
        assert all(reading[socket] for socket in waiting)
        assert not waiting or sum(count - 1 for count in reading.values()) == self.slots.shared


TestMachine = pytest.mark.filterwarnings("error")(Machine.TestCase)
TestMachine.settings = settings(max_examples=50, stateful_step_count=60, deadline=None)
