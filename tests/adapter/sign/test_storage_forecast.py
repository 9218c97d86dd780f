"""A full disk ends all signing: who runs an adapter hears of it days before."""

from __future__ import annotations

import pytest
from capsign_adapter.sign import health_checks
from capsign_adapter.sign.storage_forecast import LONG_S, WINDOW_MS, StorageForecast
from capsign_adapter.store.sqlite import SqliteStore, create_sqlite

MIB = 1 << 20


def test_a_store_that_grows_says_when_its_disk_is_full():
    growth = StorageForecast()
    for minute in range(11):
        growth.record(minute * 60_000, (100 + minute) * MIB, (600 - minute) * MIB)
    assert growth.time_to_full_s() == pytest.approx(590 * 60)
    assert (growth.bytes, growth.free) == (110 * MIB, 590 * MIB)


def test_one_that_does_not_lasts_for_long():
    growth = StorageForecast()
    assert growth.time_to_full_s() == LONG_S
    growth.record(0, MIB, MIB)
    growth.record(60_000, MIB, MIB)
    assert growth.time_to_full_s() == LONG_S
    growth.record(120_000, MIB // 2, MIB)
    assert growth.time_to_full_s() == LONG_S


def test_a_full_disk_is_full_now():
    growth = StorageForecast()
    growth.record(0, MIB, 0)
    assert growth.time_to_full_s() == 0
    growth.record(60_000, 2 * MIB, 0)
    assert growth.time_to_full_s() == 0


def test_what_was_more_than_an_hour_ago_does_not_count():
    growth = StorageForecast()
    growth.record(0, 0, 1000 * MIB)
    growth.record(60_000, 500 * MIB, 500 * MIB)
    growth.record(60_000 + WINDOW_MS, 500 * MIB, 500 * MIB)
    assert growth.time_to_full_s() == LONG_S


def test_what_counts_is_what_lies_on_the_disk(tmp_path):
    """The write-ahead log is a file beside the database, and takes room as well."""
    create_sqlite(tmp_path / "store.db")
    store = SqliteStore(tmp_path / "store.db")
    (tmp_path / "store.db-more").write_bytes(bytes(700_000))
    (tmp_path / "other").write_bytes(bytes(900_000))
    growth = StorageForecast()
    free = health_checks.free_of(tmp_path, 0)
    assert free is not None
    health_checks.storage_sampler(growth, store, free, lambda: 0)()
    beside = [file for file in tmp_path.iterdir() if file.name.startswith("store.db")]
    assert growth.bytes == sum(file.stat().st_size for file in beside)
    assert growth.free > 0
    store.close()


def test_what_a_database_elsewhere_may_still_take_is_what_is_left_of_its_capacity():
    free = health_checks.free_of(None, 10 * MIB)
    assert free is not None
    assert [free(MIB), free(11 * MIB)] == [9 * MIB, 0]
    assert health_checks.free_of(None, 0) is None
