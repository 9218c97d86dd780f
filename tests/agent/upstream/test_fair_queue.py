"""Each owner has its turn."""

from __future__ import annotations

from collections import Counter

from capsign_agent.upstream.fair_queue import FairQueue
from hypothesis import given
from hypothesis import strategies as st

QUANTUM = 8
MOST = 32
Thing = tuple[str, int, int]
"""Owner, cost, number."""

THINGS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, MOST)), max_size=60).map(
    lambda pairs: [(owner, cost, number) for number, (owner, cost) in enumerate(pairs)]
)


def queue(things: list[Thing]) -> FairQueue[Thing]:
    made: FairQueue[Thing] = FairQueue(QUANTUM, lambda one: one[0], lambda one: one[1])
    for one in things:
        made.append(one)
    return made


def drained(made: FairQueue[Thing]) -> list[Thing]:
    out = []
    while made:
        first = made.peek()
        assert first is not None
        assert made.pop() == first
        out.append(first)
    return out


def test_who_asks_for_little_waits_for_one_round() -> None:
    many: list[Thing] = [("greedy", 8, number) for number in range(100)]
    made = queue([*many, ("modest", 1, 0)])
    assert ("modest", 1, 0) in drained(made)[:3]


def test_alone_it_is_a_line() -> None:
    things: list[Thing] = [("a", MOST, number) for number in range(10)]
    assert drained(queue(things)) == things


def test_put_back_it_is_first_of_its_line() -> None:
    made = queue([("a", 1, 1), ("b", 1, 1)])
    made.append_first(("a", 1, 0))
    assert [one for one in drained(made) if one[0] == "a"] == [("a", 1, 0), ("a", 1, 1)]


def test_what_is_removed_does_not_come() -> None:
    made = queue([("a", 1, 1), ("b", 1, 1)])
    assert made.remove(("a", 1, 1))
    assert not made.remove(("a", 1, 1))
    assert drained(made) == [("b", 1, 1)]
    assert not made


def test_who_is_skipped_keeps_its_place() -> None:
    made = queue([("a", 1, 1), ("b", 1, 1)])
    assert made.peek({"a"}) == ("b", 1, 1)
    assert made.peek({"a", "b"}) is None
    assert made.pop() in {("a", 1, 1), ("b", 1, 1)}


@given(THINGS)
def test_everything_comes_once_and_each_line_in_its_order(things: list[Thing]) -> None:
    made = queue(things)
    assert len(made) == len(things)
    assert sorted(made) == sorted(things)
    out = drained(made)
    for owner in "abc":
        assert [one for one in out if one[0] == owner] == [one for one in things if one[0] == owner]
    assert len(out) == len(things)


@given(THINGS)
def test_nobody_gets_more_than_a_thing_and_a_round_ahead_while_both_wait(
    things: list[Thing],
) -> None:
    """The bound of deficit round robin: between two that wait all the time, served costs differ by
    less than a quantum and the dearest thing on either side.
    """
    made = queue(things)
    served: Counter[str] = Counter()
    since: dict[tuple[str, str], int] = {}
    while made:
        waiting = {one[0] for one in made}
        for one in waiting:
            for other in waiting:
                ahead = served[one] - served[other]
                begin = since.setdefault((one, other), ahead)
                assert ahead - begin <= 2 * (QUANTUM + MOST)
        since = {
            pair: begin
            for pair, begin in since.items()
            if pair[0] in waiting and pair[1] in waiting
        }
        made.peek()
        owner, cost, _ = made.pop()
        served[owner] += cost
