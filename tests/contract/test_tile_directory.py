"""A log copied into files, from every store: an archive of its own, begun again at any file, and
joined with the store that has the rest.
"""

from __future__ import annotations

import os
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
from capsign_adapter.model.evidence import Checkpoint
from capsign_adapter.model.policies import PolicyDraft
from capsign_evidence.archive import ArchiveError, open_archive
from capsign_evidence.archive.copying import copy_log, copy_tile
from capsign_evidence.archive.interface import ALL
from capsign_evidence.archive.tile_directory import DirectoryArchive
from capsign_evidence.archive.tile_files import TileFiles
from capsign_evidence.checkpoint import TreeHead
from capsign_evidence.leaf import admin
from capsign_evidence.leaf_kinds import Act
from capsign_evidence.proofs import TreeReader
from capsign_evidence.tile_builder import TileBuilder
from capsign_evidence.tiles import TileName, open_batch_file
from support.drafts import APP, NOW, OTHER_APP, audit, draft, logged
from support.evidence_at_rest import MemoryArchive


def grown(store, *segments: int) -> bytes:
    """The checkpoint after these segments, each with an agent's batch after it. Who copies verifies
    nobody's signature.
    """
    for number, count in enumerate(segments):
        store.commit(store.control().revocation_epoch, [draft() for _ in range(count)], NOW)
        store.submit_audit(logged(audit(workload=(APP, OTHER_APP)[number % 2])), NOW)
    size = store.control().tree_size
    root = TreeReader(store.hashes, size).root()
    note = (TreeHead("log.test", size, root).text() + "\n\u2014 log.test AAAAAAAA\n").encode()
    store.save_checkpoint(Checkpoint(size, root, note, NOW))
    return note


def everything(archive, size: int):
    return (
        list(archive.entries(0, size)),
        list(archive.batches(0, size)),
        archive.hashes(0, 0, size),
        archive.hashes(1, 0, size),
    )


def test_a_copy_is_the_log(store, place, tmp_path):
    note = grown(store, 3, 300, 700)
    with open_archive(place.url, place.password_file) as source:
        size = source.size
        assert copy_log(source, TileFiles(tmp_path / "log"), note) == size
        with open_archive(tmp_path / "log") as copied:
            assert (copied.first, copied.size, copied.origin) == (0, size, "log.test")
            assert copied.checkpoint() == note
            assert everything(copied, size) == everything(source, size)
            for first, count in ((0, 1), (250, 10), (size - 1, ALL), (size, 5)):
                assert list(copied.entries(first, count)) == list(source.entries(first, count))
                assert list(copied.batches(first, count)) == list(source.batches(first, count))
            assert [index for index, _ in copied.summaries(1)] == [*range(1, size // 256)]


def test_it_goes_on_where_it_ended(store, place, tmp_path):
    files = TileFiles(tmp_path / "log")
    with open_archive(place.url, place.password_file) as source:
        first = copy_log(source, files, grown(store, 300, 10))
        told: list[tuple[int, int]] = []
        note = grown(store, 300)
        size = source.size
        assert copy_log(source, files, note, lambda *done: told.append(done)) == size - first
        assert told[0] == (512, size)
        assert copy_log(source, files, note) == 0
        assert everything(DirectoryArchive(tmp_path / "log"), size) == everything(source, size)


class EndsAfter:
    """A source that fails after so many tiles."""

    def __init__(self, source, tiles: int) -> None:
        self.source, self.left = source, tiles

    def entries(self, first, count):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return self.source.entries(first, count)

    def batches(self, first_leaf, count):
        return self.source.batches(first_leaf, count)

    def policy(self, digest):
        return self.source.policy(digest)


def test_a_copy_that_was_ended_is_taken_up_again(store, place, tmp_path):
    note = grown(store, 1000)
    files = TileFiles(tmp_path / "log")
    with open_archive(place.url, place.password_file) as source:
        with pytest.raises(KeyboardInterrupt):
            copy_log(EndsAfter(source, 2), files, note)
        assert files.read("checkpoint") is None
        rest = EndsAfter(source, 2)
        copy_log(rest, files, note)
        assert rest.left == 0, "what was there is not fetched again"


def test_what_is_not_what_was_signed_is_no_copy(tmp_path):
    source = MemoryArchive([b"one", b"two"])
    root = TreeReader(lambda *_: source.hashes(*_), 2).root()
    note = (TreeHead("log.test", 2, root).text() + "\n\u2014 log.test AAAAAAAA\n").encode()
    source.held[1] = b"changed"
    with pytest.raises(ArchiveError, match="not the root that was signed") as damaged:
        copy_log(source, TileFiles(tmp_path), note)
    assert damaged.value.damaged
    assert not (tmp_path / "checkpoint").exists()


def test_a_file_that_was_changed_is_found(store, place, tmp_path):
    note = grown(store, 600)
    files = TileFiles(tmp_path / "log")
    with open_archive(place.url, place.password_file) as source:
        copy_log(source, files, note)
        path = tmp_path / "log" / "tile" / "0" / "000"
        path.write_bytes(bytes(8192))
        (tmp_path / "log" / "checkpoint").unlink()
        with pytest.raises(ArchiveError, match="another content") as damaged:
            copy_log(source, files, note)
        assert damaged.value.damaged
    shutil.rmtree(tmp_path / "log" / "tile" / "entries")
    files.replace("checkpoint", note)
    with pytest.raises(ArchiveError, match="are not in the directory"):
        list(DirectoryArchive(tmp_path / "log").entries(0, 1))


class Counts:
    """A source of one tile whose leaves are all of batches, which counts those that are held."""

    def __init__(self, entries) -> None:
        self.held, self.most = entries, 0
        self.alive: set[int] = set()

    def entries(self, first, count):
        return iter(self.held[first : first + count])

    def batches(self, first_leaf, count):
        for index in range(first_leaf, first_leaf + count):
            batch = _Held(b"batch %d" % index)
            self.alive.add(index)
            batch.gone = lambda index=index: self.alive.discard(index)
            self.most = max(self.most, len(self.alive))
            yield index, "", batch
            del batch

    def policy(self, digest):
        return None


class _Held(bytes):
    """Bytes that say when nobody has them any more."""

    def __del__(self):
        self.gone()


def test_batches_are_copied_a_few_at_a_time(tmp_path):
    """A tile may have 256 of a mebibyte each."""
    source, files = Counts([b"entry %d" % number for number in range(256)]), TileFiles(tmp_path)
    copy_tile(source, files, TileBuilder(), TileName(0, 0))
    assert source.most < 5
    found = open_batch_file(files.read("capsign/batches/000"))
    assert found == [(index, b"batch %d" % index) for index in range(256)]


def test_an_empty_file_is_none_and_one_that_failed_leaves_none(tmp_path):
    """What a full disk or a crash leaves: an entries file of no bytes was taken for a tile."""
    files = TileFiles(tmp_path, durable=True)
    (tmp_path / "tile").touch()
    assert (files.read("tile"), files.has("tile")) == (None, False)
    files.write("tile", b"content")
    assert files.read("tile") == b"content"
    with pytest.raises(ArchiveError, match="another content"):
        files.write_parts("tile", [b"content", b" and more"])
    with pytest.raises(ZeroDivisionError):
        files.write_parts("other", (b"%d" % (1 // left) for left in (1, 0)))
    assert [path.name for path in tmp_path.iterdir()] == ["tile"]


def test_entries_that_are_there_are_on_the_disk_before_rows_go(tmp_path, monkeypatch):
    """Whoever wrote them: a restore, or a process that died before it had them there."""
    source = Counts([b"entry %d" % number for number in range(256)])
    copy_tile(source, TileFiles(tmp_path), TileBuilder(), TileName(0, 0))
    synced, real = set(), os.fsync

    def fsync(descriptor):
        synced.add(str(Path(f"/proc/self/fd/{descriptor}").readlink()).removeprefix(f"{tmp_path}/"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    copy_tile(source, TileFiles(tmp_path, durable=True), TileBuilder(), TileName(0, 0))
    every = {"tile/entries/000", "tile/0/000", "capsign/batches/000", "capsign/summaries/000"}
    assert every <= synced


def test_a_directory_that_is_no_log(tmp_path):
    with pytest.raises(ArchiveError, match="no log as files"):
        open_archive(tmp_path)


def test_a_copy_has_the_policies_that_its_entries_name(store, place, tmp_path):
    """Without them nobody can say later whose key an agent's record was about."""
    document = b"grants: []"
    digest = sha256(document).digest()
    leaf = admin(NOW, digest, Act.POLICY_APPLIED, APP, f"1/{digest.hex()}", 1)
    store.first_policy(PolicyDraft(digest, document, 0, APP), lambda epoch: leaf, NOW)
    note = grown(store, 3)
    with open_archive(place.url, place.password_file) as source:
        copy_log(source, TileFiles(tmp_path / "log"), note)
    with open_archive(tmp_path / "log") as copied:
        assert (list(copied.policies()), copied.policy(digest)) == ([document], document)
        (tmp_path / "log/capsign/policies" / digest.hex()).write_bytes(b"another")
        assert copied.policy(digest) is None
