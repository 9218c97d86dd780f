"""What one container did takes no other's room in the journal."""

from __future__ import annotations

from pathlib import Path

import pytest
from capsign_agent.journal import records
from capsign_agent.journal.journal import Journal
from capsign_agent.journal.shares import RECORD_BYTES
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import failures_pb2 as fail
from support.agent_calls import batch, group, intents, one, outcomes
from support.agent_home import Home, first_handle, running
from support.fake_adapter import FakeAdapter
from support.journals import kill

MAX = 1 << 20
SOCKETS = ("loud", "quiet", "third")


def start(directory: Path, boot: int = 1, reserved: int = 50) -> Journal:
    return Journal(directory, MAX, bytes([boot]) * 16, 1_700_000_000_000 + boot, SOCKETS, reserved)


def fill(journal: Journal, socket: str) -> tuple[int, int]:
    """Calls of a socket, intent and outcome, until the journal refuses; returns how many, and the
    reason.
    """
    calls = 0
    while True:
        try:
            journal.promise(50, socket)
        except FailureError as error:
            return calls, error.reason
        piece = records.Piece()
        for _ in range(50):
            records.intents(piece, [new_intent_id()], "tokens", 1, socket)
        journal.append(piece, 50, socket)
        piece = records.Piece()
        for _ in range(50):
            records.done(piece, [new_intent_id()], 7, "tokens", 1, socket)
        journal.append(piece, 50, socket)
        calls += 50


def test_one_socket_takes_what_is_free_and_its_share_and_is_told_so(tmp_path: Path) -> None:
    journal = start(tmp_path)
    calls, reason = fill(journal, "loud")
    assert reason == fail.REASON_JOURNAL_SHARE_FULL
    assert journal.size_bytes > MAX // 2  # more than a third: the others did nothing
    assert 0.6 < journal.fullest_share < 0.7
    assert calls
    with pytest.raises(FailureError, match="loud"):
        journal.promise(50, "loud")
    with pytest.raises(FailureError, match="loud"):
        journal.refuse(piece_of(200), "loud")
    assert not journal.full  # others can sign


def piece_of(count: int) -> records.Piece:
    piece = records.Piece()
    for _ in range(count):
        ids = [new_intent_id()]
        records.failed(
            piece, ids, "tokens", 1, "loud", fail.OUTCOME_REFUSED, fail.REASON_HANDLE_UNKNOWN
        )
    return piece


def test_after_a_restart_each_socket_has_the_bytes_that_it_wrote(tmp_path: Path) -> None:
    """One record may have a thousand calls."""
    journal, piece = start(tmp_path), records.Piece()
    records.intents(piece, [new_intent_id() for _ in range(1000)], "tokens", 1, "loud")
    journal.append(piece, socket="loud")
    for _ in range(3):
        piece = records.Piece()
        records.intents(piece, [new_intent_id()], "tokens", 1, "quiet")
        journal.append(piece, socket="quiet")
    shares = [journal.share_of(socket) for socket in ("loud", "quiet")]
    kill(journal, tmp_path)
    found = start(tmp_path, 2)
    again = [found.share_of(socket) for socket in ("loud", "quiet")]
    assert again == pytest.approx(shares, abs=40 / MAX)


def test_the_others_have_their_shares_and_each_only_its_own(tmp_path: Path) -> None:
    journal = start(tmp_path)
    fill(journal, "loud")
    share = (MAX - 4096) // 2 // len(SOCKETS)
    for socket in ("quiet", "third"):
        before = journal.size_bytes
        calls, _ = fill(journal, socket)
        assert journal.size_bytes - before > share - 100 * RECORD_BYTES
        assert calls
    assert journal.size_bytes <= MAX


def test_room_comes_back_to_whose_records_were_delivered(tmp_path: Path) -> None:
    journal = start(tmp_path)
    calls, _ = fill(journal, "loud")
    journal.seal()
    for segment in journal.sealed():
        journal.delivered(segment)
    assert journal.fullest_share == 0
    again, _ = fill(journal, "loud")
    assert abs(again - calls) <= 200  # segments are cut elsewhere


def test_what_is_only_reserved_counts_too_and_is_released(tmp_path: Path) -> None:
    """A batch in flight has room for its outcomes; without that, ten in flight were nothing."""
    journal = start(tmp_path)
    most = (MAX - 4096) * 2 // 3 // (2 * RECORD_BYTES)  # what is free, and a third of the rest
    journal.promise(most - 1, "loud")
    with pytest.raises(FailureError, match="JOURNAL_SHARE_FULL"):
        journal.promise(10, "loud")
    journal.promise(10, "quiet")
    journal.forget(2 * (most - 1), "loud")
    journal.promise(most - 1, "loud")


def test_what_an_earlier_life_left_counts_for_those_who_did_it(tmp_path: Path) -> None:
    """Else a container would get a new share with each restart of the agent."""
    directory = tmp_path / "j"
    before = start(directory)
    fill(before, "loud")
    kill(before, directory)
    journal = start(directory, boot=2)
    calls, reason = fill(journal, "loud")
    assert reason == fail.REASON_JOURNAL_SHARE_FULL
    assert calls <= 100
    journal.promise(100, "quiet")


@pytest.mark.parametrize(("reserved", "most"), [(0, MAX), (100, MAX // 3)])
def test_how_much_is_reserved_is_a_setting(tmp_path: Path, reserved: int, most: int) -> None:
    journal = start(tmp_path, reserved=reserved)
    fill(journal, "loud")
    assert most - 200 * RECORD_BYTES < journal.size_bytes <= most + 200 * RECORD_BYTES


def test_one_socket_alone_has_the_whole_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path, MAX, bytes(16), 1, ["app"])
    _, reason = fill(journal, "app")
    assert reason == fail.REASON_JOURNAL_FULL
    assert journal.size_bytes > MAX - 200 * RECORD_BYTES


async def test_a_container_that_signs_without_end_leaves_its_neighbour_room_to_sign(
    place: Home, adapter: FakeAdapter
) -> None:
    """Nothing goes upstream, and one container signs on and on: it filled the journal, and the
    other could sign no more. Batches of both are refused in part.
    """
    adapter.faults.audit = lambda _: fail.REASON_STORE_UNAVAILABLE
    place.journal_extra = "max_bytes = 1048576"
    other = place.root / "o" / "agent.sock"
    place.sockets += f'[[sockets]]\nname = "other"\npath = "{other}"\n'
    async with running(place) as agent:
        loud = place.stub()
        place.socket = other
        quiet = place.stub()
        handle = (await first_handle(loud)).id
        while True:
            [signed] = await batch(loud, group(handle, *[b"x"] * 500))
            failed = {item.failure.reason for item in signed.items if item.failure.reason}
            if failed:
                break
        assert failed == {fail.REASON_JOURNAL_SHARE_FULL}
        assert "app" in next(one.failure.message for one in signed.items if one.failure.reason)
        assert agent.faults() == []
        handle = (await first_handle(quiet)).id
        for _ in range(20):
            assert isinstance(await one(quiet, handle), agent_pb2.SignResponse)
        adapter.faults.audit = lambda _: 0
    assert len(intents(adapter)) == len(outcomes(adapter)) == adapter.signed
