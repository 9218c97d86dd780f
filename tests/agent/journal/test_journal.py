from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from capsign_agent.journal import journal as module
from capsign_agent.journal import records
from capsign_agent.journal.directory import JournalError
from capsign_agent.journal.journal import Journal
from capsign_agent.journal.shares import RECORD_BYTES
from capsign_evidence import told_calls
from capsign_wire import bounds
from capsign_wire.adapter.v1 import evidence_pb2
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import failures_pb2
from hypothesis import given
from hypothesis import strategies as st
from support.journals import kill, last_segment

MAX = 1 << 20


def start(directory: Path, boot: int = 1, max_bytes: int = MAX) -> Journal:
    return Journal(directory, max_bytes, bytes([boot]) * 16, 1_700_000_000_000 + boot)


def some(count: int, *, together: bool = False) -> records.Piece:
    """Records of so many calls: one for each, the most that there can be, or one for all."""
    piece, ids = records.Piece(), [new_intent_id() for _ in range(count)]
    for each in [ids] if together else [[one] for one in ids]:
        records.intents(piece, each, "tokens", 1, "app")
    return piece


def fill(journal: Journal) -> int:
    """Intents of 100 calls at a time until the journal refuses; returns how often."""
    times = 0
    while True:
        try:
            journal.promise(100)
        except FailureError as error:
            if error.reason != failures_pb2.REASON_JOURNAL_FULL:
                raise
            return times
        journal.append(some(100), promised=100)
        times += 1


def batches(journal: Journal) -> list[evidence_pb2.AuditBatch]:
    return [bounds.parse(evidence_pb2.AuditBatch, segment.batch()) for segment in journal.sealed()]


def check_chain(journal: Journal) -> list[int]:
    """Each batch names the one before it, and the sequences count up without a gap; returns
    them.
    """
    previous: dict[bytes, bytes] = {}
    sequences: dict[bytes, list[int]] = {}
    for segment in journal.sealed():
        batch = bounds.parse(evidence_pb2.AuditBatch, segment.batch())
        assert batch.previous == previous.get(batch.boot_id, b"")
        previous[batch.boot_id] = hashlib.sha256(segment.batch()).digest()
        sequences.setdefault(batch.boot_id, []).extend(record.sequence for record in batch.records)
        assert sequences[batch.boot_id][-1] == segment.last_sequence
        assert len(batch.records) == segment.records
    for numbers in sequences.values():
        assert numbers == list(range(1, len(numbers) + 1))
    return [number for numbers in sequences.values() for number in numbers]


def test_a_segment_is_the_batch_and_names_its_predecessor(tmp_path: Path) -> None:
    journal = start(tmp_path)
    for _ in range(3):
        journal.append(some(5))
        journal.append(some(2))
        journal.seal()
    assert len(journal.sealed()) == 3
    assert check_chain(journal) == list(range(1, 22))


def test_nothing_is_sealed_without_a_record(tmp_path: Path) -> None:
    journal = start(tmp_path)
    journal.seal()
    assert journal.sealed() == []
    assert not journal.waiting
    journal.close()
    assert not any(one.is_dir() for one in tmp_path.iterdir())


def test_a_segment_stays_within_the_bounds_of_a_batch(tmp_path: Path) -> None:
    journal = start(tmp_path, max_bytes=64 << 20)
    for _ in range(20):
        journal.append(some(1024))
    journal.seal()
    for batch, segment in zip(batches(journal), journal.sealed(), strict=True):
        assert len(batch.records) <= 4096
        assert len(segment.batch()) <= 1 << 20
    assert len(check_chain(journal)) == 20 * 1024


def test_the_records_of_a_segment_tell_of_no_more_calls_than_a_batch_may(tmp_path: Path) -> None:
    journal = start(tmp_path)
    for count in [1024] * 9 + [1] * 5:
        journal.append(some(count, together=True))
    journal.seal()
    assert [told_calls.count(batch.records) for batch in batches(journal)] == [4096, 4096, 1029]
    assert check_chain(journal) == [*range(1, 15)]


def test_a_segment_travels_in_one_request_that_every_adapter_takes(tmp_path: Path) -> None:
    journal = start(tmp_path, max_bytes=1 << 26)
    for _ in range(12):
        journal.append(some(1024))
    journal.seal()
    sizes = [
        evidence_pb2.SubmitAuditRequest(batch=segment.batch()).ByteSize()
        for segment in journal.sealed()
    ]
    assert len(sizes) > 1
    assert max(sizes) <= bounds.ADAPTER_REQUEST_BYTES


@pytest.mark.parametrize("calls", [1, 2, 3, 100, 1024])
def test_no_record_is_larger_than_what_is_reserved_for_its_calls(calls: int) -> None:
    piece = records.Piece()
    records.done(piece, [b"\xff" * 16] * calls, 2**63, "g" * 64, 7, "c" * 64, 2**32 - 1)
    [record] = piece.records
    record.sequence, record.time_ms = 2**63, 2**48
    assert records.calls_in(piece) == calls
    assert len(piece.SerializeToString()) + 8 <= calls * module.RECORD_BYTES


def test_more_calls_than_one_record_tells_of_are_told_in_several(tmp_path: Path) -> None:
    journal, ids = start(tmp_path), [bytes([at % 256, at // 256]) * 8 for at in range(2500)]
    piece = records.Piece()
    records.done(piece, ids, 70, "tokens", 1, "app", 3)
    journal.append(piece)
    journal.seal()
    [batch] = batches(journal)
    found = [one for record in batch.records for one in told_calls.each(record)]
    assert found == [(intent_id, 71 + at) for at, intent_id in enumerate(ids)]
    assert [len(told_calls.intents(record)) for record in batch.records] == [1024, 1024, 452]
    bounds.check(batch)


def test_what_was_written_survives_kill_9_and_is_delivered_under_its_own_boot(
    tmp_path: Path,
) -> None:
    first = start(tmp_path, 1)
    first.append(some(3))
    first.seal()
    first.append(some(4))
    kill(first, tmp_path)
    second = start(tmp_path, 2)
    second.append(some(1))
    second.seal()
    assert [batch.boot_id[0] for batch in batches(second)] == [1, 1, 2]
    assert check_chain(second) == [1, 2, 3, 4, 5, 6, 7, 1]


def test_a_crash_at_every_byte_of_the_last_segment_leaves_whole_records(tmp_path: Path) -> None:
    """Whatever the length at which the file ends, recovery keeps every whole frame, drops the torn
    one, and says how much.
    """
    source = tmp_path / "source"
    journal = start(source)
    for count in (2, 1, 3):
        journal.append(some(count))
    path = last_segment(source)
    kill(journal, source)
    data = path.read_bytes()
    ends, at = [0], 0
    while at < len(data):
        at += 8 + int.from_bytes(data[at : at + 4], "big")
        ends.append(at)
    held = {0: 0, 1: 0, 2: 2, 3: 3, 4: 6}
    for size in range(len(data) + 1):
        copy = tmp_path / "copy"
        shutil.copytree(source, copy)
        (copy / path.relative_to(source)).write_bytes(data[:size])
        recovered = start(copy, 2)
        frames = sum(end <= size for end in ends[1:])
        assert len(check_chain(recovered)) == held[frames], size
        assert recovered.torn_bytes == size - ends[frames]
        recovered.close()
        shutil.rmtree(copy)


def test_the_first_record_names_the_lives_that_this_one_found(tmp_path: Path) -> None:
    """A life that was killed has no CLOSE record: whoever reconciles would take it for a cut tail,
    if the next one did not say how far it went. Also if all of it was delivered.
    """
    journal = start(tmp_path)
    journal.append(some(3))
    kill(journal, tmp_path)
    second = start(tmp_path, 2)
    assert second.left() == [(bytes([1]) * 16, 3)]
    second.open(records.opened(second.left()))
    second.seal()
    for segment in second.sealed():
        second.delivered(segment)
    kill(second, tmp_path)
    third = start(tmp_path, 3)
    third.open(records.opened(third.left()))
    third.seal()
    told = [(one.kind, one.other_boot, one.other_sequence) for one in batches(third)[0].records]
    assert told == [
        (evidence_pb2.AUDIT_KIND_OPEN, b"", 0),
        (evidence_pb2.AUDIT_KIND_RECOVERED, bytes([2]) * 16, 0),
    ]


def test_a_life_of_which_no_record_is_left_leaves_nothing(tmp_path: Path) -> None:
    """Otherwise each start of an agent that is killed at once would leave a folder behind."""
    journal = start(tmp_path)
    journal.append(some(2))
    kill(journal, tmp_path)
    segment = last_segment(tmp_path)
    opening = 8 + int.from_bytes(segment.read_bytes()[:4], "big")
    os.truncate(segment, opening)
    recovered = start(tmp_path, 2)
    assert recovered.sealed() == []
    assert not segment.exists()
    recovered.open(records.opened(recovered.left()))
    assert not segment.parent.exists()
    recovered.close()


@given(st.floats(0, 1, exclude_max=True))
def test_a_flipped_bit_is_never_delivered(place: float) -> None:
    root = Path(tempfile.mkdtemp())
    journal = start(root)
    journal.append(some(2))
    journal.append(some(2))
    kill(journal, root)
    path = last_segment(root)
    content = bytearray(path.read_bytes())
    bit = int(place * len(content) * 8)
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    recovered = start(root, 2)
    assert check_chain(recovered) in ([], [1, 2])
    recovered.close()
    shutil.rmtree(root)


def test_damage_in_the_middle_stops_the_agent_and_deletes_nothing(tmp_path: Path) -> None:
    journal = start(tmp_path)
    for _ in range(2):
        journal.append(some(2))
        journal.seal()
    first = journal.sealed()[0].path
    kill(journal, tmp_path)
    os.truncate(first, 20)
    with pytest.raises(JournalError, match="Keep it for the auditor"):
        start(tmp_path, 2)
    assert first.stat().st_size == 20


def test_a_segment_changed_behind_our_back_is_not_sent(tmp_path: Path) -> None:
    journal = start(tmp_path)
    journal.append(some(2))
    journal.seal()
    [segment] = journal.sealed()
    os.truncate(segment.path, segment.path.stat().st_size - 1)
    with pytest.raises(JournalError, match="damaged"):
        segment.batch()


def test_delivery_deletes_the_segment_and_gives_its_room_back(tmp_path: Path) -> None:
    journal = start(tmp_path)
    journal.append(some(100))
    journal.seal()
    [segment] = journal.sealed()
    assert journal.size_bytes > 0
    journal.delivered(segment)
    assert journal.size_bytes == 0
    assert not segment.path.exists()


def test_a_full_journal_refuses_new_calls_and_still_takes_the_outcomes_it_promised(
    tmp_path: Path,
) -> None:
    journal = start(tmp_path)
    calls = fill(journal)
    assert calls > 10
    for _ in range(calls):
        journal.append(some(100), promised=100)
    assert journal.size_bytes <= MAX
    journal.append(records.closed())
    assert journal.size_bytes <= MAX


def test_what_is_refused_to_one_socket_leaves_room_for_the_refusals_of_others_and_for_calls(
    tmp_path: Path,
) -> None:
    """An application was refused without end: its records filled the journal, and no container
    could sign any more.
    """
    journal = Journal(tmp_path, MAX, bytes(16), 1, sockets=["loud", "quiet"])
    wrote = 0
    with contextlib.suppress(FailureError):
        while True:
            journal.refuse(some(100), "loud")
            wrote += 100
    assert MAX // 4 < journal.size_bytes < MAX // 4 + 100 * RECORD_BYTES
    journal.refuse(some(100), "quiet")
    journal.promise(1000)
    journal.seal()
    assert sum(segment.records for segment in journal.sealed()) == wrote + 100
    for segment in journal.sealed():
        journal.delivered(segment)
    journal.refuse(some(100), "loud")


def test_a_refusal_that_does_not_fit_writes_nothing(tmp_path: Path) -> None:
    journal = start(tmp_path)
    fill(journal)
    before = journal.sequence
    with pytest.raises(FailureError, match="JOURNAL_FULL"):
        journal.refuse(some(300), "app")
    assert journal.sequence == before


def test_signing_resumes_when_the_journal_was_delivered(tmp_path: Path) -> None:
    journal = start(tmp_path)
    journal.forget(100 * fill(journal))
    fill(journal)
    journal.seal()
    for segment in journal.sealed():
        journal.delivered(segment)
    assert not journal.full
    journal.promise(100)


def test_a_full_disk_leaves_no_torn_bytes_and_no_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write fails after some bytes reached the file: what follows must still be readable."""
    journal = start(tmp_path)
    journal.append(some(2))
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[: len(data) // 2]))
    with pytest.raises(FailureError, match="JOURNAL_FULL"):
        journal.append(some(2))
    assert journal.full
    with pytest.raises(FailureError, match="JOURNAL_FULL"):
        journal.promise(1)
    monkeypatch.setattr(os, "write", write)
    journal.promise(1)
    assert not journal.full
    journal.append(some(2))
    journal.seal()
    assert check_chain(journal) == [1, 2, 3, 4]


def test_a_record_without_a_promise_may_follow_a_failed_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = start(tmp_path)
    journal.append(some(1))
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, data[:5]))
        with pytest.raises(FailureError, match="JOURNAL_FULL"):
            journal.append(some(2))
    journal.append(some(1))
    journal.seal()
    assert check_chain(journal) == [1, 2]


def test_a_full_disk_at_the_first_record_of_a_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = start(tmp_path)

    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        with pytest.raises(FailureError, match="JOURNAL_FULL"):
            journal.append(some(2))
    journal.promise(1)
    journal.append(some(2))
    journal.seal()
    assert check_chain(journal) == [1, 2]


@pytest.mark.parametrize("call", ["mkdir", "write"])
def test_a_life_that_begins_on_a_full_disk_writes_its_first_record_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """It refuses calls, writes nothing before the record that it began, and what the last life left
    can still be delivered.
    """
    first = start(tmp_path)
    first.append(some(3))
    kill(first, tmp_path)

    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        journal = start(tmp_path, 2)
        journal.open(records.opened())
        assert journal.full
        with pytest.raises(FailureError, match="JOURNAL_FULL"):
            journal.append(some(1))
        [left] = journal.sealed()
        journal.delivered(left)
    journal.append(some(1))
    assert not journal.full
    journal.seal()
    [batch] = batches(journal)
    opening, intent = batch.records
    assert (opening.kind, intent.kind) == (
        evidence_pb2.AUDIT_KIND_OPEN,
        evidence_pb2.AUDIT_KIND_INTENT,
    )
    assert check_chain(journal) == [1, 2]


def test_a_life_that_never_had_room_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", fail)
    journal = start(tmp_path)
    journal.open(records.opened())
    journal.close()
    assert [one.name for one in tmp_path.iterdir()] == [".lock"]


def test_a_directory_that_cannot_be_written_is_no_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "mkdir", fail)
    with pytest.raises(JournalError, match="Read-only file system"):
        start(tmp_path)


def test_what_is_not_ours_in_the_directory_is_left_alone(tmp_path: Path) -> None:
    """The journal as the root of a volume: `lost+found` is empty, and belongs to the file system's
    repair. It was removed.
    """
    (tmp_path / "lost+found").mkdir()
    foreign = tmp_path / "1-notes"
    foreign.mkdir()
    (foreign / "1.seg").write_bytes(b"not a frame")
    start(tmp_path).close()
    assert (tmp_path / "lost+found").is_dir()
    assert (foreign / "1.seg").read_bytes() == b"not a frame"


def test_one_process_holds_the_directory(tmp_path: Path) -> None:
    journal = start(tmp_path)
    with pytest.raises(JournalError, match="Another agent"):
        start(tmp_path, 2)
    journal.close()
    start(tmp_path, 3).close()
