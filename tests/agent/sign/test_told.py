"""One record tells of all calls of which the same is to be told, and of no other."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from capsign_agent.journal import records
from capsign_agent.sign.told import Told
from capsign_evidence import told_calls
from capsign_wire.adapter.v1 import evidence_pb2 as pb
from capsign_wire.types.v1 import failures_pb2 as fail
from hypothesis import given
from hypothesis import strategies as st


def call(*numbers: int, grant: str = "orders", algorithm: int = 1) -> Any:
    """Its items by number, which is its intent id."""
    ids = [number.to_bytes(16, "big") for number in numbers]
    return SimpleNamespace(
        intents=ids, held=SimpleNamespace(grant=grant, socket="app"), algorithm=algorithm
    )


def records_of(told: Told) -> Sequence[pb.AuditRecord]:
    return list(told.piece("app").records)


def numbers(record: pb.AuditRecord) -> list[int]:
    return [int.from_bytes(one, "big") for one in told_calls.intents(record)]


def test_calls_of_one_and_a_call_of_many_are_told_alike() -> None:
    apart, together = Told(), Told()
    for number in range(64):
        apart.intents(call(number))
    together.intents(call(*range(64)))
    assert records_of(apart) == records_of(together)
    assert len(records_of(together)) == 1
    assert apart.calls == together.calls == 64


def test_what_has_another_grant_or_algorithm_has_another_record() -> None:
    told = Told()
    for one in (call(1), call(2, grant="other"), call(3), call(4, algorithm=2)):
        told.intents(one)
    found = [(one.grant, one.algorithm, numbers(one)) for one in records_of(told)]
    assert found == [("orders", 1, [1, 3]), ("other", 1, [2]), ("orders", 2, [4])]


def test_outcomes_are_told_in_runs_of_leaves_with_the_slowest_of_them() -> None:
    told = Told()
    told.done(call(1, 2), [70, 71], 5)
    told.done(call(3), [72], 90)
    told.done(call(4, 5), [60, 73], 7)  # the first of them was signed before
    told.done(call(6), [74], 8)
    found = [(one.leaf_index_plus_one, numbers(one), one.elapsed_ms) for one in records_of(told)]
    assert found == [(71, [1, 2, 3], 90), (61, [4], 7), (74, [5, 6], 8)]


def test_failures_are_told_by_what_came_of_them_and_why() -> None:
    told, unknown = Told(), (fail.OUTCOME_UNKNOWN, fail.REASON_ANSWER_LOST)
    told.failed(call(1), b"a" * 16, *unknown)
    told.failed(call(2), b"b" * 16, fail.OUTCOME_REFUSED, fail.REASON_RATE_LIMITED)
    told.failed(call(3), b"c" * 16, *unknown)
    told.one_done(call(4), b"d" * 16, 7, 1)
    found = [(one.outcome, one.reason, told_calls.intents(one)) for one in records_of(told)]
    assert found == [
        (fail.OUTCOME_DONE, 0, [b"d" * 16]),
        (*unknown, [b"a" * 16, b"c" * 16]),
        (fail.OUTCOME_REFUSED, fail.REASON_RATE_LIMITED, [b"b" * 16]),
    ]


@given(leaves=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), max_size=6))
def test_each_item_is_told_once_with_its_leaf(leaves: list[list[int]]) -> None:
    told, expected = Told(), []
    for at, each in enumerate(leaves):
        one = call(*range(at * 10, at * 10 + len(each)))
        expected += list(zip(one.intents, each, strict=True))
        told.done(one, each, 1)
    found = [(id_, named - 1) for one in records_of(told) for id_, named in told_calls.each(one)]
    assert found == expected
    piece = told.piece("app")
    assert records.calls_in(piece) == told.calls == len(expected)
