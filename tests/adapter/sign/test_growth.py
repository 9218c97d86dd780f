"""A full disk ends all signing: who runs an adapter hears of it days before."""

from __future__ import annotations

import pytest
from capsign_adapter.sign import looks
from capsign_adapter.sign.growth import LONG_S, WINDOW_MS, Growth
from capsign_adapter.store.sqlite import SqliteStore, create_sqlite

MIB = 1 << 20


def test_a_store_that_grows_says_when_its_disk_is_full():
    growth = Growth()
    for minute in range(11):
        growth.saw(minute * 60_000, (100 + minute) * MIB, (600 - minute) * MIB)
    assert growth.time_to_full_s() == pytest.approx(590 * 60)
    assert (growth.bytes, growth.free) == (110 * MIB, 590 * MIB)


def test_one_that_does_not_lasts_for_long():
    growth = Growth()
    assert growth.time_to_full_s() == LONG_S
    growth.saw(0, MIB, MIB)
    growth.saw(60_000, MIB, MIB)
    assert growth.time_to_full_s() == LONG_S
    growth.saw(120_000, MIB // 2, MIB)
    assert growth.time_to_full_s() == LONG_S


def test_a_full_disk_is_full_now():
    growth = Growth()
    growth.saw(0, MIB, 0)
    assert growth.time_to_full_s() == 0
    growth.saw(60_000, 2 * MIB, 0)
    assert growth.time_to_full_s() == 0


def test_what_was_more_than_an_hour_ago_does_not_count():
    growth = Growth()
    growth.saw(0, 0, 1000 * MIB)
    growth.saw(60_000, 500 * MIB, 500 * MIB)
    growth.saw(60_000 + WINDOW_MS, 500 * MIB, 500 * MIB)
    assert growth.time_to_full_s() == LONG_S


def test_what_counts_is_what_lies_on_the_disk(tmp_path):
    """The write-ahead log is a file beside the database, and takes room as well."""
    create_sqlite(tmp_path / "store.db")
    store = SqliteStore(tmp_path / "store.db")
    (tmp_path / "store.db-more").write_bytes(bytes(700_000))
    (tmp_path / "other").write_bytes(bytes(900_000))
    growth = Growth()
    free = looks.free_of(tmp_path, 0)
    assert free is not None
    looks.at_growth(growth, store, free, lambda: 0)()
    beside = [file for file in tmp_path.iterdir() if file.name.startswith("store.db")]
    assert growth.bytes == sum(file.stat().st_size for file in beside)
    assert growth.free > 0
    store.close()


def test_what_a_database_elsewhere_may_still_take_is_what_is_left_of_its_capacity():
    free = looks.free_of(None, 10 * MIB)
    assert free is not None
    assert [free(MIB), free(11 * MIB)] == [9 * MIB, 0]
    assert looks.free_of(None, 0) is None
