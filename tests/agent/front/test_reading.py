"""Who may read a message now."""

from __future__ import annotations

from collections import Counter

import pytest
from capsign_agent.front.reading import GRACE_S, MOST_IDLE_S, MOST_S, QUIET_S, Reader, Turns
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
    turns: Turns, socket: str, count: int, now: float = 0.0, *, stream: bool = False
) -> list[Asked]:
    some = [Asked(socket, stream=stream) for _ in range(count)]
    assert all(turns.ask(one, now) for one in some)
    return some


def test_each_socket_has_a_turn_of_its_own_and_the_others_are_for_whoever_comes() -> None:
    turns = Turns(2, 6)
    taken(turns, "greedy", 1 + turns.for_all)
    late = Asked("greedy")
    assert not turns.ask(late, 0.0)
    taken(turns, "other", 1)
    assert turns.reading == turns.most


def test_a_turn_that_comes_free_goes_to_the_socket_that_has_the_fewest() -> None:
    turns = Turns(2, 6)
    first, *_ = taken(turns, "greedy", 1 + turns.for_all)
    taken(turns, "other", 1)
    greedy, other = Asked("greedy"), Asked("other")
    assert not turns.ask(greedy, 0.0)
    assert not turns.ask(other, 0.0)
    turns.done(first, 0.0)
    assert (greedy.went, other.went) == (0, 1)


def test_half_a_message_is_ended_in_time_though_nobody_waits() -> None:
    turns = Turns(1, 7)
    (half,) = taken(turns, "app", 1)
    turns.look(MOST_S)
    assert not half.ended
    turns.look(MOST_S + 0.1)
    turns.look(MOST_S + 0.2)
    assert half.ended == 1
    assert turns.reading == 1  # what has come of it is in memory until it is gone
    turns.done(half, MOST_S + 0.3)
    assert turns.reading == 0


def test_a_stream_may_idle_while_nobody_waits_but_not_for_ever() -> None:
    turns = Turns(1, 7)
    (idle,) = taken(turns, "app", 1, stream=True)
    turns.look(MOST_IDLE_S)
    assert not idle.ended
    assert turns.ask(idle, MOST_IDLE_S)  # a message came
    turns.look(2 * MOST_IDLE_S)
    assert not idle.ended
    turns.look(2 * MOST_IDLE_S + 0.1)
    assert idle.ended


def test_a_stream_on_which_nothing_is_asked_makes_room_for_who_waits() -> None:
    turns = Turns(1, 7)
    streams = taken(turns, "app", 1 + turns.for_all, stream=True)
    for one in streams[1:]:
        one.calls = 1
    late = Asked("app", stream=True)
    assert not turns.ask(late, 0.0)
    turns.look(QUIET_S / 2)
    assert not late.went
    turns.look(QUIET_S)
    turns.look(QUIET_S)
    assert not late.went
    turns.done(streams[0], QUIET_S)
    assert late.went == 1
    assert [one.ended for one in streams] == [1] + [0] * turns.for_all


def test_halves_of_one_socket_keep_the_shared_turns_from_another_for_a_moment_only() -> None:
    turns = Turns(2, 6)
    halves = taken(turns, "greedy", 1 + turns.for_all)
    taken(turns, "other", 1)
    more = Asked("other")
    assert not turns.ask(more, 0.0)
    turns.look(GRACE_S)
    assert not more.went
    turns.look(GRACE_S + 0.01)
    [ended] = [one for one in halves if one.ended]
    turns.done(ended, GRACE_S + 0.02)
    assert more.went == 1


def test_who_waits_too_long_is_told() -> None:
    turns = Turns(1, 7)
    taken(turns, "app", 1 + turns.for_all, now=1.0)
    late = Asked("app")
    turns.ask(late, 0.5)
    turns.look(0.5 + MOST_S + 0.1)
    assert late.ended
    assert not turns.contended


def test_a_stream_that_goes_on_lets_others_go_first() -> None:
    turns = Turns(1, 7)
    busy, *_ = taken(turns, "app", 1 + turns.for_all, stream=True)
    late = Asked("app")
    turns.ask(late, 0.0)
    assert not turns.ask(busy, 0.1)
    assert late.went == 1
    turns.done(late, 0.2)
    assert busy.went == 1


def test_who_was_told_to_end_does_not_wait_again() -> None:
    """Its call came in the moment in which its stream was ended. It gave its turn to another and
    stood in the queue, which cannot be told to end twice: whoever looked for those that wait too
    long came to no end, and the agent with it.
    """
    turns = Turns(1, 7)
    idle = taken(turns, "app", 1 + turns.for_all, stream=True)
    late = Asked("app")
    turns.ask(late, QUIET_S)
    turns.look(QUIET_S)
    [ended] = [one for one in idle if one.ended]
    assert turns.ask(ended, QUIET_S + 0.01)
    assert not late.went
    turns.look(QUIET_S + MOST_S + 0.1)
    assert not turns.contended


class Machine(RuleBasedStateMachine):
    """Any order of events: turns are never more than there are, every socket that waits has one,
    nobody is forgotten.
    """

    def __init__(self) -> None:
        super().__init__()
        self.turns = Turns(3, 5)
        self.now = 0.0
        self.known: list[Asked] = []

    @rule(socket=st.sampled_from("abc"), stream=st.booleans())
    def ask(self, socket: str, stream: bool) -> None:
        one = Asked(socket, stream=stream)
        self.turns.ask(one, self.now)
        self.known.append(one)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.known))
        if one.reading:
            self.turns.ask(one, self.now)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.known))
        self.turns.done(one, self.now)
        self.known.remove(one)

    @rule(seconds=st.floats(0, 2 * MOST_S))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.turns.look(self.now)
        self.known = [one for one in self.known if one.reading or one.waiting]

    @invariant()
    def bounded_and_nobody_without_a_turn_that_is_free(self) -> None:
        reading = Counter(one.socket for one in self.known if one.reading)
        waiting = {one.socket for one in self.known if one.waiting}
        assert self.turns.reading == reading.total()
        assert sum(count - 1 for count in reading.values()) <= self.turns.for_all
        assert all(one.reading != one.waiting for one in self.known)
        assert self.turns.contended == bool(waiting)
        assert all(reading[socket] for socket in waiting)
        assert not waiting or sum(count - 1 for count in reading.values()) == self.turns.for_all


TestMachine = pytest.mark.filterwarnings("error")(Machine.TestCase)
TestMachine.settings = settings(max_examples=50, stateful_step_count=60, deadline=None)
