"""Summaries of full tiles, made in the background from what the store holds."""

from __future__ import annotations

import pytest
from capsign_adapter.sign.tile_summaries import TILES, TileSummaries
from capsign_adapter.store.sqlite import SqliteStore, create_sqlite
from capsign_evidence.archive import open_archive
from capsign_evidence.archive.scan import find
from capsign_evidence.archive.selection import Selection, select
from capsign_evidence.archive.summary import Summary, summarise
from support.drafts import NOW, audit
from support.evidence_at_rest import signed


@pytest.fixture
def store(tmp_path):
    create_sqlite(tmp_path / "store.db")
    opened = SqliteStore(tmp_path / "store.db")
    yield opened
    opened.close()


def signatures(first: int, count: int) -> list[bytes]:
    return [
        signed(number, key="odd" if number == 700 else "orders")
        for number in range(first, first + count)
    ]


def test_full_tiles_are_summarised_a_few_at_a_time(store, tmp_path):
    store.append(signatures(0, (TILES + 2) * 256 + 255), NOW)
    summaries = TileSummaries(store)
    assert summaries.step()
    assert store.summarised_tiles() == TILES
    assert not summaries.step()
    assert store.summarised_tiles() == TILES + 2
    assert not summaries.step()
    store.append(signatures(9000, 1), NOW)
    assert not summaries.step()
    with open_archive(tmp_path / "store.db") as archive:
        made = dict(archive.summaries(0))
        expected = summarise(512, archive.entries(512, 256), []).encode()
        found = [event.index for event in find(archive, Selection(select({"key": ["odd"]})))]
    assert (sorted(made), made[2], found) == ([*range(TILES + 3)], expected, [700])


def test_the_batches_of_its_leaves_are_in_it_and_no_others(store, tmp_path):
    """Each draft's batch is bytes that are no AuditBatch, so its tile is marked as unreadable: all
    of them were looked at.
    """
    store.append(signatures(0, 240), NOW)
    for _ in range(40):
        store.submit_audit(audit(), NOW)
    store.append(signatures(300, 232), NOW)
    TileSummaries(store).step()
    with open_archive(tmp_path / "store.db") as archive:
        for tile, data in archive.summaries(0):
            batches = list(archive.batches(tile * 256, 256))
            assert len(batches) == (16, 24)[tile]
            assert summarise(tile * 256, archive.entries(tile * 256, 256), batches).encode() == data
            assert Summary.decode(data).unreadable


def test_a_second_replica_goes_on_where_the_first_was(store, tmp_path):
    store.append(signatures(0, 512), NOW)
    other = SqliteStore(tmp_path / "store.db")
    TileSummaries(store).step()
    assert not TileSummaries(other).step()
    assert other.summarised_tiles() == 2
    other.close()


def test_a_replica_leaves_it_to_the_one_that_reads_the_log(store):
    store.append(signatures(0, 512), NOW)
    assert not TileSummaries(store, lambda: False).step()
    assert store.summarised_tiles() == 0
