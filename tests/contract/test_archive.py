"""A store as an archive: what the adapter wrote is read without it, on every engine."""

from __future__ import annotations

import sqlite3
from hashlib import sha256
from itertools import islice

import pytest
from capsign_adapter.model.evidence import Checkpoint
from capsign_adapter.model.policies import PolicyDraft
from capsign_evidence.archive import ArchiveError, open_archive
from capsign_evidence.archive.interface import ALL
from capsign_evidence.archive.sqlite_file import SqliteArchive
from support.drafts import APP, NOW, OTHER_APP, audit, draft

SEGMENTS = (1, 5, 300, 2, 700)


def fill(store):
    """Segments of different lengths, and batches of two workloads between them."""
    for number, count in enumerate(SEGMENTS):
        store.commit(store.control().revocation_epoch, [draft() for _ in range(count)], NOW)
        app = (APP, OTHER_APP)[number % 2]
        store.submit_audit(audit(workload=app), NOW)


@pytest.fixture
def filled(store):
    fill(store)
    return store


@pytest.fixture
def opened(place, store):
    return open_archive(place.url, place.password_file)


def test_entries_and_hashes_are_those_of_the_store(filled, opened):
    size = filled.control().tree_size
    with opened as archive:
        assert (archive.first, archive.size) == (0, size)
        assert list(archive.entries(0, ALL)) == filled.entries(0, size)
        for first, count in ((0, 1), (5, 3), (299, 400), (size - 1, 10), (size, 4), (7, 0)):
            assert list(archive.entries(first, count)) == filled.entries(first, count)
            assert archive.hashes(0, first, count) == filled.hashes(0, first, count)
        assert archive.hashes(1, 0, ALL) == filled.hashes(1, 0, 100)


def test_batches_come_with_leaf_and_workload(filled, opened):
    with opened as archive:
        every = filled.audit_batches()
        assert list(archive.batches(0)) == every
        assert [workload for _, workload, _ in every] == [APP, OTHER_APP, APP, OTHER_APP, APP]
        assert list(archive.batches(every[1][0], 1)) == every[1:2]
        assert list(archive.batches(every[-1][0] + 1)) == []


def test_the_checkpoint_is_the_newest_one_saved(filled, opened):
    with opened as archive:
        assert (archive.checkpoint(), archive.origin) == (None, "")
        note = b"log.example\n3\nroot\n\n\xe2\x80\x94 log.example sig\n"
        filled.save_checkpoint(Checkpoint(3, bytes(32), note, NOW))
        assert (archive.checkpoint(), archive.origin) == (note, "log.example")


def test_it_follows_a_store_that_grows(filled, opened):
    with opened as archive:
        size = archive.size
        filled.append([b"one more"], NOW)
        assert list(archive.entries(size, ALL)) == [b"one more"]
        assert archive.size == size + 1


def test_many_segments_are_read_in_pieces(store, opened):
    for number in range(70):
        store.append([b"%d" % number], NOW)
    with opened as archive:
        assert list(archive.entries(0, ALL)) == [b"%d" % number for number in range(70)]
        assert list(islice(archive.entries(33, ALL), 2)) == [b"33", b"34"]


def test_summaries_are_kept_by_tile_and_what_is_there_stays(store, opened):
    with opened as archive:
        assert (store.summarised_tiles(), list(archive.summaries(0))) == (0, [])
        store.save_summaries(0, [b"0", b"1"])
        store.save_summaries(1, [b"other", b"2"])
        assert store.summarised_tiles() == 3
        assert store.summaries(1, 9, 1) == [(1, b"1"), (2, b"2")]
        assert store.summaries(0, 1, 1) == [(0, b"0")]
        assert store.summaries(0, 9, 0) == []
        assert list(archive.summaries(1)) == [(1, b"1"), (2, b"2")]
        store.save_summaries(3, [b"%d" % tile for tile in range(3, 1100)])
        assert [tile for tile, _ in archive.summaries(1)] == list(range(1, 1100))


def test_policies_are_held_by_their_digest(store, opened):
    with opened as archive:
        assert (list(archive.policies()), archive.policy(bytes(32))) == ([], None)
        digest = sha256(b"a policy").digest()
        draft = PolicyDraft(digest, b"a policy", 0, APP)
        store.first_policy(draft, lambda epoch: b"in force", NOW)
        assert list(archive.policies()) == [b"a policy"]
        assert archive.policy(digest) == b"a policy"
        assert archive.policy(bytes(32)) is None


def copied(store, tmp_path):
    """The file of a store that nobody has open, in a directory of its own."""
    fill(store)
    store.close()
    place = tmp_path / "evidence"
    place.mkdir()
    copy = place / "store.db"
    copy.write_bytes((tmp_path / "state/store.db").read_bytes())
    return copy


@pytest.fixture
def copy(sqlite_place, tmp_path):
    sqlite_place.create()
    return copied(sqlite_place.open(), tmp_path)


def test_a_copy_is_read_and_nothing_is_made_beside_it(copy):
    before = copy.read_bytes()
    copy.chmod(0o400)
    copy.parent.chmod(0o500)
    with open_archive(copy) as archive:
        assert len(list(archive.entries(0, ALL))) == archive.size == sum(SEGMENTS) + len(SEGMENTS)
    copy.parent.chmod(0o700)
    assert [file.name for file in copy.parent.iterdir()] == ["store.db"]
    assert copy.read_bytes() == before


def test_a_segment_that_is_missing_is_damage(copy):
    with sqlite3.connect(copy) as connection:
        connection.execute("DELETE FROM log_segments WHERE first_index = 2")
    connection.close()
    with open_archive(copy) as archive, pytest.raises(ArchiveError, match="2 to 6 are not") as told:
        list(archive.entries(0, ALL))
    assert told.value.damaged


@pytest.mark.parametrize(
    "change", ["substr(entries, 1, 100)", "CAST(entries || x'0001' AS BLOB)", "x''"]
)
def test_a_segment_that_is_cut_is_damage(copy, change):
    with sqlite3.connect(copy) as connection:
        connection.execute(
            f"UPDATE log_segments SET entries = {change} WHERE first_index = 2"  # noqa: S608
        )
    connection.close()
    with open_archive(copy) as archive, pytest.raises(ArchiveError, match="cut off") as told:
        list(archive.entries(4, 1))
    assert told.value.damaged


def test_an_adapter_that_opens_a_copy_is_noticed(copy, sqlite_place):
    """It was opened as one that nobody changes: what would be read of it could be anything."""
    archive = SqliteArchive(copy)
    with sqlite3.connect(copy) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("DELETE FROM log_nodes")
        connection.commit()
        with pytest.raises(ArchiveError, match="begun to write"):
            list(archive.entries(0, 1))
    connection.close()
    archive.close()


def test_what_is_no_store_is_refused(tmp_path):
    text, other = tmp_path / "text", tmp_path / "other.db"
    text.write_text("no database " * 100)
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE things (id)")
    connection.close()
    for place, what in (
        (tmp_path / "absent", "no store"),
        (text, "cannot be read"),
        (other, "not a store"),
    ):
        with pytest.raises(ArchiveError, match=what):
            open_archive(place)


def test_a_number_where_bytes_should_be_is_damage(copy):
    """SQLite has no types: a number would be read as so many zero bytes, more than fit."""
    with sqlite3.connect(copy) as connection:
        connection.execute("UPDATE log_segments SET entries = 1000000000000")
    connection.close()
    with open_archive(copy) as archive, pytest.raises(ArchiveError, match="another type") as told:
        list(archive.entries(0, 1))
    assert told.value.damaged
