"""A checkpoint must cover what the same adapter told of, once it has had the time for it."""

from __future__ import annotations

import pytest
from capsign_agent.timing import USUAL
from capsign_agent.witness.told_leaves import ToldLeaves
from capsign_wire.adapter.v1 import signing_pb2
from capsign_wire.types.v1 import signing_pb2 as types

A, B = "a:7443", "b:7443"
AFTER_S = 300.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def answer(leaf: int, *, signed: bool = True) -> signing_pb2.SignResponse:
    item = types.SignedItem(leaf_index=leaf)
    if signed:
        item.signatures.add(value=b"s")
    return signing_pb2.SignResponse(groups=[types.SignedGroup(items=[item])])


def test_a_leaf_is_due_after_the_time_and_not_before(clock: Clock) -> None:
    told = ToldLeaves(AFTER_S, clock)
    told.answered(A, answer(41))
    clock.now += AFTER_S - 1
    assert told.due(A) == 0
    clock.now += 1
    assert told.due(A) == 42
    assert told.due(B) == 0, "who lies about numbers makes nobody leave another"


def test_what_is_told_all_the_time_is_due_and_never_too_early(clock: Clock) -> None:
    """A busy agent is told of leaves without a pause: none of them may wait for the pause, and none
    may be due before its own time.
    """
    told = ToldLeaves(AFTER_S, clock)
    at: list[tuple[float, int]] = []
    for leaf in range(2000):
        clock.now += 1
        told.answered(A, answer(leaf))
        at.append((clock.now, leaf + 1))
        due = told.due(A)
        ripe = [size for when, size in at if when <= clock.now - AFTER_S]
        assert due <= max(ripe, default=0)
        assert due >= leaf - 2 * AFTER_S


def test_it_is_never_less_than_some_looks() -> None:
    assert USUAL.covered_after_s(60) == AFTER_S
    assert USUAL.covered_after_s(3600) == 3 * 3600


def test_what_was_not_signed_is_owed_by_nobody(clock: Clock) -> None:
    told = ToldLeaves(AFTER_S, clock)
    told.answered(A, answer(7, signed=False))
    told.answered(A, signing_pb2.SignResponse())
    clock.now += 1e6
    assert told.due(A) == 0


def test_an_older_leaf_later_changes_nothing(clock: Clock) -> None:
    """A call that is asked for again has the leaf that it had."""
    told = ToldLeaves(AFTER_S, clock)
    told.answered(A, answer(9))
    clock.now += AFTER_S
    told.answered(A, answer(3))
    clock.now += AFTER_S
    assert told.due(A) == 10
