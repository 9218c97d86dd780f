"""What an agent takes as the same log, and what it calls a split view."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from capsign_agent.witness.log_view import LogView, SplitViewError
from capsign_evidence.split_view import Fault
from capsign_wire.adapter.v1 import evidence_pb2
from support.fake_log import FakeLog


def show(view: LogView, log: FakeLog, size: int | None = None) -> bool:
    """Shows a checkpoint with an honest attempt at the proof that is needed."""
    shown = view.read(log.checkpoint(size), log.key.text())
    gap = view.gap(shown)
    return view.take(shown, log.consistency(*gap) if gap is not None else ())


@pytest.fixture
def log() -> FakeLog:
    return FakeLog(leaves=7)


@pytest.fixture
def view(log: FakeLog) -> LogView:
    """One that has seen the log as it is."""
    fresh = LogView()
    assert show(fresh, log)
    return fresh


def test_the_first_checkpoint_is_taken_with_its_key(log: FakeLog, view: LogView) -> None:
    assert view.key == log.key
    assert view.size == 7


@pytest.mark.parametrize("more", [1, 2, 9, 100])
def test_a_log_that_grew_is_taken(log: FakeLog, view: LogView, more: int) -> None:
    assert show(view, log.grow(more))
    assert view.size == 7 + more


def test_the_same_and_an_older_one_are_good_and_change_nothing(log: FakeLog, view: LogView) -> None:
    for size in (7, 6, 4, 1):
        assert not show(view, log, size)
    assert view.size == 7


def test_the_first_leaf_may_follow_an_empty_log() -> None:
    view, log = LogView(), FakeLog(leaves=0)
    assert show(view, log)
    assert show(view, log.grow())


SPLITS: dict[str, tuple[Callable[[FakeLog], FakeLog], int | None, Fault]] = {
    "as many leaves, another root": (lambda log: _last_changed(log), None, Fault.FORKED),
    "more leaves, that do not follow": (
        lambda log: _last_changed(log).grow(5),
        None,
        Fault.INCONSISTENT,
    ),
    "fewer leaves, that are no prefix": (lambda log: _last_changed(log), 7, Fault.FORKED),
    "an older one of a fork": (lambda log: _first_changed(log), 6, Fault.INCONSISTENT),
    "an empty log": (lambda log: log, 0, Fault.SHRUNK),
    "a signature by another key": (lambda log: log.forged(), None, Fault.SIGNATURE),
    "another log": (lambda _: FakeLog("other.test"), None, Fault.OTHER_LOG),
    "another key of the same name": (lambda _: FakeLog(leaves=9), None, Fault.OTHER_LOG),
}


def _last_changed(log: FakeLog) -> FakeLog:
    other = log.fork(0)
    other.leaves[-1] = b"another"
    return other


def _first_changed(log: FakeLog) -> FakeLog:
    other = log.fork(0)
    other.leaves[0] = b"another"
    return other


@pytest.mark.parametrize("name", SPLITS)
def test_what_contradicts_is_named_and_nothing_of_it_is_taken(
    log: FakeLog, view: LogView, name: str
) -> None:
    change, size, fault = SPLITS[name]
    before = view.seen
    with pytest.raises(SplitViewError) as caught:
        show(view, change(log), size)
    assert caught.value.fault is fault
    assert view.seen is before
    assert view.key == log.key


def test_a_proof_that_is_left_out_or_cut_short_does_not_pass(log: FakeLog, view: LogView) -> None:
    log.grow(6)
    shown = view.read(log.checkpoint(), log.key.text())
    whole = log.consistency(7, 13)
    for proof in ([], whole[:-1], [*whole, bytes(32)], [bytes(31), *whole[1:]]):
        with pytest.raises(SplitViewError) as caught:
            view.take(shown, proof)
        assert caught.value.fault is Fault.INCONSISTENT


def test_a_key_is_learned_only_with_a_checkpoint_that_it_has_signed(log: FakeLog) -> None:
    """An adapter that states its key and signs with another one would leave the agent with a key
    that no adapter has.
    """
    view = LogView()
    with pytest.raises(SplitViewError):
        show(view, log.forged())
    assert view.key is None
    assert show(view, log)


def test_a_key_that_is_none_is_a_fault(log: FakeLog) -> None:
    with pytest.raises(SplitViewError):
        LogView().read(log.checkpoint(), "log.test+00000000+AAAA")


def test_the_faults_have_the_numbers_of_the_wire() -> None:
    assert {f"LOG_FAULT_{one.name}": one.value for one in Fault} == {
        name: number for name, number in evidence_pb2.LogFault.items() if number
    }
