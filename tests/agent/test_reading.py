"""Who may read a message now."""

from __future__ import annotations

from collections import Counter

import pytest
from capsign_agent.reading import FOR_ALL, GRACE_S, MOST_IDLE_S, MOST_S, QUIET_S, Reader, Turns
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule


class Asked:
    """A reader, and what happened to it."""

    def __init__(self, socket: str, *, stream: bool = False) -> None:
        self.went = self.ended = 0
        self.calls = 0
        self.reader = Reader(socket, self._go, self._end, (lambda: not self.calls) if stream else None)

    def _go(self) -> None:
        self.went += 1

    def _end(self) -> None:
        self.ended += 1


def taken(turns: Turns, socket: str, count: int, now: float = 0.0, *, stream: bool = False) -> list[Asked]:
    some = [Asked(socket, stream=stream) for _ in range(count)]
    assert all(turns.ask(one.reader, now) for one in some)
    return some


def test_each_socket_has_a_turn_of_its_own_and_the_others_are_for_whoever_comes() -> None:
    turns = Turns(2)
    taken(turns, "greedy", 1 + FOR_ALL)
    late = Asked("greedy")
    assert not turns.ask(late.reader, 0.0)
    taken(turns, "other", 1)
    assert turns.reading == turns.most


def test_a_turn_that_comes_free_goes_to_the_socket_that_has_the_fewest() -> None:
    turns = Turns(2)
    first, *_ = taken(turns, "greedy", 1 + FOR_ALL)
    taken(turns, "other", 1)
    greedy, other = Asked("greedy"), Asked("other")
    assert not turns.ask(greedy.reader, 0.0)
    assert not turns.ask(other.reader, 0.0)
    turns.done(first.reader, 0.0)
    assert (greedy.went, other.went) == (0, 1)


def test_half_a_message_is_ended_in_time_though_nobody_waits() -> None:
    turns = Turns(1)
    (half,) = taken(turns, "app", 1)
    turns.look(MOST_S)
    assert not half.ended
    turns.look(MOST_S + 0.1)
    assert half.ended
    assert turns.reading == 0


def test_a_stream_may_idle_while_nobody_waits_but_not_for_ever() -> None:
    turns = Turns(1)
    (idle,) = taken(turns, "app", 1, stream=True)
    turns.look(MOST_IDLE_S)
    assert not idle.ended
    assert turns.ask(idle.reader, MOST_IDLE_S)  # a message came
    turns.look(2 * MOST_IDLE_S)
    assert not idle.ended
    turns.look(2 * MOST_IDLE_S + 0.1)
    assert idle.ended


def test_a_stream_on_which_nothing_is_asked_makes_room_for_who_waits() -> None:
    turns = Turns(1)
    streams = taken(turns, "app", 1 + FOR_ALL, stream=True)
    for one in streams[1:]:
        one.calls = 1
    late = Asked("app", stream=True)
    assert not turns.ask(late.reader, 0.0)
    turns.look(QUIET_S / 2)
    assert not late.went
    turns.look(QUIET_S)
    assert late.went == 1
    assert [one.ended for one in streams] == [1] + [0] * FOR_ALL


def test_halves_of_one_socket_keep_the_shared_turns_from_another_for_a_moment_only() -> None:
    turns = Turns(2)
    halves = taken(turns, "greedy", 1 + FOR_ALL)
    taken(turns, "other", 1)
    more = Asked("other")
    assert not turns.ask(more.reader, 0.0)
    turns.look(GRACE_S)
    assert not more.went
    turns.look(GRACE_S + 0.01)
    assert more.went == 1
    assert sum(one.ended for one in halves) == 1


def test_who_waits_too_long_is_told() -> None:
    turns = Turns(1)
    taken(turns, "app", 1 + FOR_ALL, now=1.0)
    late = Asked("app")
    turns.ask(late.reader, 0.5)
    turns.look(0.5 + MOST_S + 0.1)
    assert late.ended
    assert not turns.contended


def test_a_stream_that_goes_on_lets_others_go_first() -> None:
    turns = Turns(1)
    busy, *_ = taken(turns, "app", 1 + FOR_ALL, stream=True)
    late = Asked("app")
    turns.ask(late.reader, 0.0)
    assert not turns.ask(busy.reader, 0.1)
    assert late.went == 1
    turns.done(late.reader, 0.2)
    assert busy.went == 1


class Machine(RuleBasedStateMachine):
    """Any order of events: turns are never more than there are, every socket that waits has one, nobody is forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = Turns(3)
        self.now = 0.0
        self.known: list[Asked] = []

    @rule(socket=st.sampled_from("abc"), stream=st.booleans())
    def ask(self, socket: str, stream: bool) -> None:
        one = Asked(socket, stream=stream)
        self.turns.ask(one.reader, self.now)
        self.known.append(one)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.known))
        if one.reader.reading:
            self.turns.ask(one.reader, self.now)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.known))
        self.turns.done(one.reader, self.now)
        self.known.remove(one)

    @rule(seconds=st.floats(0, 2 * MOST_S))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.turns.look(self.now)
        self.known = [one for one in self.known if not one.ended]

    @invariant()
    def bounded_and_nobody_without_a_turn_that_is_free(self) -> None:
        reading = Counter(one.reader.socket for one in self.known if one.reader.reading)
        waiting = {one.reader.socket for one in self.known if one.reader.waiting}
        assert self.turns.reading == reading.total()
        assert sum(count - 1 for count in reading.values()) <= FOR_ALL
        assert all(one.reader.reading != one.reader.waiting for one in self.known)
        assert self.turns.contended == bool(waiting)
        assert all(reading[socket] for socket in waiting)
        assert not waiting or sum(count - 1 for count in reading.values()) == FOR_ALL


TestMachine = pytest.mark.filterwarnings("error")(Machine.TestCase)
TestMachine.settings = settings(max_examples=50, stateful_step_count=60, deadline=None)
