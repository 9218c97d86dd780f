"""Leaves that move to cold files, on every store: nothing is lost or half at any step, and all that
read the log read them as before.
"""

from __future__ import annotations

import dataclasses
import shutil
from contextlib import suppress
from itertools import islice

import pytest
from capsign_adapter.model.evidence import Checkpoint
from capsign_adapter.sign.log_files import LogStore, log_file
from capsign_adapter.sign.retention import Retention, demand_files
from capsign_adapter.sign.tile_summaries import TileSummaries
from capsign_adapter.store.errors import AuditOutOfOrderError
from capsign_adapter.store.faults import StoreDamagedError
from capsign_evidence.archive import ArchiveError, open_archive
from capsign_evidence.archive.joined import JoinedArchive
from capsign_evidence.archive.tile_files import TileFiles
from capsign_evidence.checkpoint import TreeHead
from capsign_evidence.leaf_reader import decode
from capsign_evidence.merkle import leaf_hash
from capsign_evidence.proofs import TreeReader, verify_consistency, verify_inclusion
from capsign_evidence.retired_leaf import Retired
from capsign_evidence.tiles import FileKind, TileName
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from support.drafts import APP, NOW, OTHER_APP, audit, draft, logged
from support.interposed import Interposed

DAY = 24 * 3_600_000
KEEP = 90 * DAY


def filled(store, *segments: int) -> None:
    """Segments with an agent's batch after each."""
    for number, count in enumerate(segments):
        store.commit(store.control().revocation_epoch, [draft() for _ in range(count)], NOW)
        store.submit_audit(logged(audit(workload=(APP, OTHER_APP)[number % 2])), NOW)


class Rig:
    """A store, its cold directory, and a clock."""

    def __init__(self, store, directory) -> None:
        self.store: LogStore = store
        self.directory = directory
        self.covered = 1 << 62
        self.now_ms = NOW + KEEP

    def retention(self, store=None, keep_ms: int = KEEP) -> Retention:
        self.store.use_cold_files(self.directory)
        return Retention(
            self.store if store is None else store,
            self.directory,
            keep_ms,
            self.shown,
            lambda: bytes(32),
            lambda: self.now_ms,
        )

    def shown(self) -> Checkpoint:
        size = min(self.covered, self.store.control().tree_size)
        return Checkpoint(size, bytes(32), b"", self.now_ms)

    def everything(self, size: int):
        """What the log's readers see of the first `size` leaves."""
        every: list[tuple[int, str, bytes]] = []
        while more := self.store.audit_batches(first_leaf=every[-1][0] + 1 if every else 0):
            every += [one for one in more if one[0] < size]
            if len(more) < 256:
                break
        return (
            self.store.entries(0, size),
            self.store.hashes(0, 0, size),
            self.store.hashes(1, 0, size // 256),
            every,
        )


@pytest.fixture
def rig(store, tmp_path):
    filled(store, 3, 300, 700, 40, 500)
    return Rig(store, tmp_path / "cold")


def moved_all(retention: Retention) -> None:
    while retention.step():
        pass


def test_what_has_moved_is_read_as_before(rig, place):
    store = rig.store
    size = store.control().tree_size
    before = rig.everything(size)
    retention = rig.retention()
    moved_all(retention)
    assert retention.moved == size // 256 * 256
    assert rig.everything(size) == before
    for first, count in ((0, 1), (255, 2), (retention.moved - 1, 5), (5, 0), (size + 5, 3)):
        assert (
            store.entries(first, count)
            == (before[0] + store.entries(size, 9))[first : first + count]
        )
    assert (
        store.audit_batches(OTHER_APP, 0, 1)
        == [one for one in before[3] if one[1] == OTHER_APP][:1]
    )
    with pytest.raises(ArchiveError), open_archive(place.url, place.password_file) as alone:
        list(alone.entries(0, size))
    together = f"{place.url},{rig.directory}"
    with open_archive(together, place.password_file) as archive:
        assert list(archive.entries(0, size)) == before[0]
        assert list(archive.batches(0)) == before[3]
        assert archive.hashes(0, 0, size) == before[1]
    body = log_file(store, FileKind.BATCHES, TileName(0, 1), 1 << 20)
    assert before[3][1][2] in body


def test_the_log_says_what_was_moved_and_proves_it_still(rig):
    store = rig.store
    size = store.control().tree_size
    root = TreeReader(store.hashes, size).root()
    retention = rig.retention()
    assert retention.step()
    moved = decode(store.entries(store.control().tree_size - 1, 1)[0])
    assert isinstance(moved, Retired)
    assert (moved.first, moved.end, moved.covered) == (0, 1024, size)
    now = store.control().tree_size
    tree = TreeReader(store.hashes, now)
    verify_consistency(moved.end, moved.root, now, tree.root(), tree.consistency(moved.end))
    verify_consistency(size, root, now, tree.root(), tree.consistency(size))
    entry = leaf_hash(store.entries(7, 1)[0])
    verify_inclusion(7, now, entry, tree.inclusion(7), tree.root())


def test_nothing_leaves_early_or_uncovered(rig):
    rig.covered = 511
    retention = rig.retention()
    assert retention.step()
    assert not retention.step()
    assert retention.moved == 256
    rig.covered = 1 << 62
    rig.now_ms = NOW + KEEP - 1
    assert not retention.step()
    assert not rig.retention(keep_ms=0).step()
    assert rig.store.moved_leaves() == 256


class FailsAt(Interposed):
    """A store of which one call fails, before it happened or after."""

    def __init__(self, part, call: int, *, happened: bool) -> None:
        super().__init__(part)
        self.calls, self.at, self.happened = 0, call, happened

    def __getattr__(self, name):
        real = super().__getattr__(name)
        if name not in {"entries", "hashes", "audit_batches", "retire", "moved_leaves"}:
            return real

        def called(*arguments, **named):
            self.calls += 1
            if self.calls != self.at:
                return real(*arguments, **named)
            if self.happened:
                real(*arguments, **named)
            raise KeyboardInterrupt

        return called


@pytest.mark.parametrize("happened", [False, True])
def test_whatever_it_dies_in_nothing_is_lost_or_half(rig, happened):
    """It dies in each of its calls in turn, and another process goes on from what is there."""
    size = rig.store.control().tree_size
    before = rig.everything(size)
    for call in range(2, 40):
        dying = FailsAt(rig.store, call, happened=happened)
        with suppress(KeyboardInterrupt):
            rig.retention(dying).step()
        assert rig.everything(size) == before
    moved_all(rig.retention())
    assert rig.everything(size) == before
    assert rig.store.moved_leaves() >= size // 256 * 256


def test_two_replicas_move_it_once(rig):
    first, second = rig.retention(), rig.retention()
    size = rig.store.control().tree_size
    assert first.step()
    assert rig.store.retire(0, 256, b"leaf", NOW) is None
    assert rig.store.control().tree_size == size + 1
    moved_all(second)
    assert first.step() is False
    assert first.moved == second.moved


def test_files_that_are_another_logs_keep_the_store_as_it_is(rig):
    path = rig.directory / "tile" / "entries" / "000"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\0\1x" * 256)
    size = rig.store.control().tree_size
    with pytest.raises(FailureError) as refused:
        rig.retention().step()
    assert refused.value.reason == reasons.REASON_INTERNAL
    assert rig.store.moved_leaves() == 0
    assert rig.store.control().tree_size == size
    assert len(rig.store.entries(0, size)) == size


def test_a_disk_that_takes_nothing_is_told_and_tried_again(rig):
    rig.directory.mkdir()
    in_the_way = rig.directory / "tile"
    in_the_way.write_bytes(b"no room")
    size, retention = rig.store.control().tree_size, rig.retention()
    with pytest.raises(FailureError) as failed:
        retention.step()
    assert failed.value.reason == reasons.REASON_COLD_FILES_MISSING
    assert (rig.store.moved_leaves(), len(rig.store.entries(0, size))) == (0, size)
    in_the_way.unlink()
    moved_all(retention)
    assert rig.store.moved_leaves() == size // 256 * 256


def test_a_directory_that_is_not_there_is_told(rig):
    retention = rig.retention()
    retention.step()
    shutil.rmtree(rig.directory)
    with pytest.raises(FailureError) as missing:
        rig.store.entries(0, 1)
    assert missing.value.reason == reasons.REASON_COLD_FILES_MISSING
    with pytest.raises(FailureError, match="1024 leaves"):
        demand_files(rig.store, rig.directory)
    assert rig.store.entries(1100, 2), "what the store has is read without them"


def test_a_batch_that_moved_is_the_duplicate_that_it_is(rig):
    """An honest agent whose journal outlived the days that batches stay: it must hear that it was
    taken, since one that is refused is an incident and stops its life.
    """
    first = logged(audit())
    second = logged(audit(first))
    third = logged(audit(second))
    for batch in (first, second):
        rig.store.submit_audit(batch, NOW)
    filled(rig.store, 1100)
    while rig.retention().step():
        pass
    size = rig.store.control().tree_size
    for again in (first, second):
        answer = rig.store.submit_audit(again, NOW)
        assert (answer.accepted_through, answer.duplicate) == (second.last_sequence, True)
    assert rig.store.control().tree_size == size
    with pytest.raises(AuditOutOfOrderError):
        rig.store.submit_audit(dataclasses.replace(second, batch_hash=b"x" * 32), NOW)
    assert not rig.store.submit_audit(third, NOW).duplicate
    with pytest.raises(AuditOutOfOrderError):
        rig.store.submit_audit(dataclasses.replace(third, batch_hash=b"x" * 32), NOW)
    between = dataclasses.replace(third, last_sequence=third.first_sequence)
    with pytest.raises(AuditOutOfOrderError):
        rig.store.submit_audit(between, NOW)


@pytest.mark.parametrize("stray", [False, True])
def test_a_gap_in_the_directory_is_told_and_never_passed_over(rig, place, stray):
    """A tile that was not copied, or a checkpoint that somebody put there, made a shorter log of
    it: what followed was left out, with other numbers.
    """
    moved_all(rig.retention())
    together, size = f"{place.url},{rig.directory}", rig.store.control().tree_size
    if stray:
        head = TreeHead("log.test", 300, bytes(32)).text()
        (rig.directory / "checkpoint").write_text(f"{head}\n\u2014 log.test AAAAAAAA\n")
        with open_archive(together, place.password_file) as archive:
            assert len(list(archive.entries(0, size))) == size
    (rig.directory / "tile" / "entries" / "001").unlink()
    with (
        open_archive(together, place.password_file) as archive,
        pytest.raises(ArchiveError, match="Leaves 256 to 511 are not in the directory"),
    ):
        list(archive.entries(0, size))
    for path in (rig.directory / "tile" / "entries").iterdir():
        path.unlink()
    with pytest.raises(ArchiveError, match="does not reach that far"):
        open_archive(together, place.password_file)


def test_a_directory_alone_does_not_end_at_its_gap(rig, place):
    """Without the store nothing says how many leaves there must be: it ended at the gap, as if the
    log did.
    """
    moved_all(rig.retention())
    with open_archive(rig.directory) as archive:
        size = archive.size
        every = list(archive.entries(0, size))
    assert size == rig.store.moved_leaves()
    for missing in ("001", "002"):
        (rig.directory / "tile" / "entries" / missing).unlink()
    (rig.directory / "tile" / "entries" / "009.p").mkdir()
    (rig.directory / "tile" / "entries" / "009.p" / "127").write_bytes(b"no full tile")
    with open_archive(rig.directory) as archive:
        assert archive.size == size
        found = archive.entries(0, size)
        assert list(islice(found, 256)) == every[:256]
        with pytest.raises(ArchiveError, match=r"Leaves 256 to 511 .* STORE,DIRECTORY") as told:
            next(found)
        assert told.value.damaged
        assert list(archive.entries(768, size)) == every[768:]


def test_batches_of_a_range_open_no_files_beyond_it(rig):
    """Of a tile without batches all files up to the next batch were read."""
    moved_all(rig.retention())
    every = rig.everything(1024)[3]
    of_tile = [one for one in every if one[0] < 256]
    (rig.directory / "capsign" / "batches" / "001").write_bytes(b"cut off")
    assert rig.store.audit_batches(end_leaf=256) == of_tile
    assert rig.store.audit_batches(first_leaf=of_tile[-1][0] + 1, end_leaf=256) == []
    assert rig.store.audit_batches(first_leaf=1300, end_leaf=1300) == []
    with pytest.raises(FailureError):
        rig.store.audit_batches(end_leaf=257 + 256)


def test_summaries_leave_the_store_too_and_are_not_made_again(rig, place):
    summaries = TileSummaries(rig.store)
    while summaries.step():
        pass
    with open_archive(place.url, place.password_file) as alone:
        before = list(alone.summaries(0))
    assert len(before) == rig.store.control().tree_size // 256
    rig.covered = 1024
    moved_all(rig.retention())
    with open_archive(place.url, place.password_file) as alone:
        held = list(alone.summaries(0))
        assert held == before[alone.first // 256 :] != before
    with open_archive(f"{place.url},{rig.directory}", place.password_file) as together:
        assert [tile for tile, _ in together.summaries(0)] == list(range(len(before)))
    assert rig.store.summarised_tiles() == len(before)


def test_summaries_of_what_moved_before_it_had_one_are_not_made_in_the_store(rig):
    rig.covered = 1024
    moved_all(rig.retention())
    assert rig.store.summarised_tiles() == 3, "a segment holds leaf 1024, and some of tile 3"
    summaries = TileSummaries(rig.store)
    while summaries.step():
        pass
    assert rig.store.summarised_tiles() == rig.store.control().tree_size // 256


class MovesMeanwhile:
    """An archive of a store from which leaves move after each piece that is read."""

    def __init__(self, archive, move) -> None:
        self.archive, self.move = archive, move

    @property
    def first(self) -> int:
        return self.archive.first

    def entries(self, first, count):
        self.move()
        yield from self.archive.entries(first, count)

    def hashes(self, level, first, count):
        self.move()
        return self.archive.hashes(level, first, count)

    def batches(self, first_leaf, count):
        self.move()
        yield from self.archive.batches(first_leaf, count)

    def policies(self):
        return self.archive.policies()

    def policy(self, digest):
        return self.archive.policy(digest)

    def close(self) -> None:
        self.archive.close()


@pytest.mark.parametrize("read", ["entries", "hashes", "batches"])
def test_what_moves_while_it_is_read_is_read(rig, place, read):
    size = rig.store.control().tree_size
    rig.covered = size - size % 256
    before = rig.everything(size)
    retention = rig.retention()
    with open_archive(place.url, place.password_file) as held:
        archive = JoinedArchive(TileFiles(rig.directory), MovesMeanwhile(held, retention.step))
        if read == "entries":
            assert list(archive.entries(0, size)) == before[0]
        elif read == "hashes":
            assert archive.hashes(0, 0, size) == before[1]
        else:
            assert list(archive.batches(0, size)) == before[3]
    assert rig.store.moved_leaves() >= 1024


def test_a_replica_that_sees_other_files_moves_nothing(rig, tmp_path):
    """Two replicas of one path and two disks: each would have a part of the log."""
    rig.covered = 1024
    assert rig.retention().step()
    rig.covered = 1 << 62
    shared, rig.directory = rig.directory, tmp_path / "another disk"
    size = rig.store.control().tree_size
    for wrong in (b"", b"\0\1x" * 256):
        path = rig.directory / "tile" / "entries" / "003"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wrong)
        with pytest.raises(FailureError) as refused:
            rig.retention().step()
        assert refused.value.reason == reasons.REASON_COLD_FILES_MISSING
    assert (rig.store.control().tree_size, rig.store.moved_leaves()) == (size, 1024)
    rig.directory = shared
    assert rig.retention().step()


def test_the_store_opens_with_what_is_left(rig, place):
    moved_all(rig.retention())
    size = rig.store.control().tree_size
    again = place.open()
    try:
        assert again.control().tree_size == size
        assert again.moved_leaves() == size // 256 * 256 or again.moved_leaves() > 0
        with pytest.raises(FailureError):
            again.entries(0, 1)
    finally:
        again.close()


def test_one_replica_moves_and_the_others_see_it(rig):
    mine = False
    retention = Retention(
        rig.store,
        rig.directory,
        KEEP,
        rig.shown,
        lambda: bytes(32),
        lambda: rig.now_ms,
        lambda: mine,
    )
    assert not retention.step()
    assert rig.store.moved_leaves() == 0
    assert rig.retention().step()
    assert not retention.step()
    assert retention.moved == rig.store.moved_leaves()
    mine = True
    moved_all(retention)
    assert retention.moved > 1024


def test_a_store_that_cannot_say_what_moved_lets_go_of_nothing(rig):
    """Its row was lost: rows would have gone, and nobody could tell which."""
    rig.store.write(lambda tx, head: tx.run("DELETE FROM log_cold"))
    size = rig.store.control().tree_size
    with pytest.raises(StoreDamagedError):
        rig.store.retire(0, 256, b"leaf", NOW)
    assert rig.store.control().tree_size == size
    assert len(rig.store.entries(0, size)) == size
