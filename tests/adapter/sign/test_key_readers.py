"""What a replica remembers of fetches of public keys, and when it tells the store."""

from __future__ import annotations

import pytest
from capsign_adapter.model.key_readers import ANONYMOUS, BY_HTTPS
from capsign_adapter.sign.key_readers import EVERY_MS, KeyReaders
from capsign_adapter.store.errors import StoreUnavailableError
from support.adapter_rig import APP, AUDITOR, RULES, STRANGER

GRANT = "orders-jwt"


class Told:
    """A store that remembers what it was told, and is away at will."""

    def __init__(self):
        self.calls, self.away = [], False

    def note_key_readers(self, seen, now_ms):
        if self.away:
            raise StoreUnavailableError("away")
        self.calls.append([(each.workload, each.version, each.fetches) for each in seen])

    def key_readers(self, tenant, key):
        raise AssertionError("nobody asks here")


class Rig:
    def __init__(self):
        self.store, self.now = Told(), 1_000_000
        self.readers = KeyReaders(self.store, lambda: RULES, lambda: self.now)

    def fetch(self, version: int = 1, times: int = 1, workload: str = APP) -> None:
        for _ in range(times):
            self.readers.served(GRANT, workload, version, 7)

    def flushed(self, passed_ms: int = 0):
        self.now += passed_ms
        self.readers.flush()
        told, self.store.calls = self.store.calls, []
        return [one for call in told for one in call]


@pytest.fixture
def rig():
    return Rig()


def test_the_same_again_is_told_now_and_then(rig):
    rig.fetch()
    assert rig.flushed() == [(APP, 1, 1)]
    rig.fetch(times=3)
    assert rig.flushed(EVERY_MS - 1) == []
    assert rig.flushed(1) == [(APP, 1, 3)]
    assert rig.flushed(EVERY_MS) == []


def test_by_https_whom_policy_does_not_know_counts_with_all_others(rig):
    for who in (AUDITOR, STRANGER, "spiffe://capsign.test/ns/x/sa/y"):
        rig.fetch(workload=BY_HTTPS + who)
    rig.fetch(workload=ANONYMOUS)
    assert sorted(rig.flushed()) == [(ANONYMOUS, 1, 3), (BY_HTTPS + AUDITOR, 1, 1)]


def test_a_newer_version_is_told_at_once_and_an_older_one_changes_nothing(rig):
    rig.fetch()
    rig.flushed()
    rig.fetch(times=2)
    rig.fetch(2)
    rig.fetch(1)
    assert rig.flushed() == [(APP, 2, 1)]


def test_what_a_store_that_is_away_was_not_told_it_is_told_later(rig):
    rig.fetch()
    rig.store.away = True
    with pytest.raises(StoreUnavailableError):
        rig.flushed()
    rig.store.away = False
    rig.fetch()
    assert rig.flushed() == [(APP, 1, 2)]


def test_what_policy_has_not_and_sets_without_keys_are_not_remembered(rig):
    rig.readers.served("nobodys", APP, 1, 7)
    rig.fetch(0)
    assert rig.flushed() == []
