"""What a kept split view says, and what it proves to somebody who has the log's key, and perhaps
the log.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from capsign_evidence.note import MAX_NOTE_LEN
from capsign_evidence.split_view import MAX_FILE_LEN, Fault, Finding, SplitView, judge
from support.fake_log import FakeLog


def split(log: FakeLog, seen: bytes, shown: bytes, *proof: bytes) -> SplitView:
    return SplitView("a:7443", 1_700_000_000_000, Fault.FORKED, log.key.text(), seen, shown, proof)


def roots(log: FakeLog) -> Callable[[int], bytes | None]:
    return lambda size: log.tree(size).root() if size <= len(log.leaves) else None


@pytest.fixture
def log() -> FakeLog:
    return FakeLog(leaves=8)


def test_a_file_is_read_back_as_it_was(log: FakeLog) -> None:
    one = split(log, log.checkpoint(3), log.checkpoint(8), *log.consistency(3, 8))
    assert SplitView.parse(one.encode()) == one
    assert json.loads(one.encode())["format"] == "capsign-split-view/1"


def test_bytes_that_are_no_note_are_kept_too(log: FakeLog) -> None:
    one = SplitView.parse(split(log, b"", b"\xff\x00").encode())
    assert one.shown == b"\\xff\x00"
    assert judge(one, log.key) is Finding.NOTHING


@pytest.mark.parametrize("byte", [b"\x01", b"\xff", b"\n", b'"'])
def test_what_is_kept_can_be_read_whatever_an_adapter_showed(byte: bytes) -> None:
    """Notes and a proof as long as the wire takes them, of bytes that JSON or UTF-8 escapes."""
    note = byte * MAX_NOTE_LEN
    one = SplitView("a:7443", 1, Fault.SIGNATURE, "", note, note, (bytes(32),) * 128)
    data = one.encode()
    assert len(data) <= MAX_FILE_LEN
    assert SplitView.parse(data).adapter == "a:7443"


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"format": "capsign-split-view/2"}', b" " * (MAX_FILE_LEN + 1)],
    ids=["nothing", "list", "empty", "other", "long"],
)
def test_what_is_no_such_file_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        SplitView.parse(data)


@pytest.mark.parametrize("field", ["adapter", "fault", "seen", "shown", "proof", "found_ms"])
def test_every_field_is_needed(log: FakeLog, field: str) -> None:
    fields = json.loads(split(log, log.checkpoint(), log.checkpoint()).encode())
    del fields[field]
    with pytest.raises(ValueError, match=field):
        SplitView.parse(json.dumps(fields).encode())


def test_two_trees_of_one_size_need_no_log(log: FakeLog) -> None:
    fork = log.fork()
    one = split(log, log.grow().checkpoint(), fork.checkpoint())
    assert judge(one, log.key) is Finding.TWO_TREES
    assert judge(one, FakeLog().key) is Finding.NOTHING  # not this log's key


def test_trees_that_a_proof_joins_prove_nothing(log: FakeLog) -> None:
    one = split(log, log.checkpoint(3), log.checkpoint(8), *log.consistency(3, 8))
    assert judge(one, log.key) is Finding.NOTHING
    older = split(log, log.checkpoint(8), log.checkpoint(3), *log.consistency(3, 8))
    assert judge(older, log.key) is Finding.NOTHING


def test_the_log_decides_about_trees_that_no_proof_joins(log: FakeLog) -> None:
    fork = log.fork(4)
    one = split(log, log.grow(2).checkpoint(), fork.checkpoint())
    assert judge(one, log.key) is Finding.UNDECIDED
    assert judge(one, log.key, roots(log)) is Finding.UNDECIDED  # not so large yet
    assert judge(one, log.key, roots(log.grow(9))) is Finding.NOT_IN_LOG
    withheld = split(log, log.checkpoint(8), log.checkpoint(12))
    assert judge(withheld, log.key, roots(log)) is Finding.NOTHING


def test_a_log_that_shrank_is_held_against_what_it_has_signed(log: FakeLog) -> None:
    """Restored from an old copy, it went on with other leaves."""
    seen = log.checkpoint()
    del log.leaves[5:]
    one = split(log, seen, log.checkpoint())
    assert judge(one, log.key, roots(log)) is Finding.UNDECIDED
    assert judge(one, log.key, roots(log.grow(6, b"again "))) is Finding.NOT_IN_LOG
