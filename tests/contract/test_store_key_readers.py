"""Who fetched public keys, in the store, on every engine."""

from __future__ import annotations

from dataclasses import replace

from capsign_adapter.model.key_readers import ANONYMOUS, KeyReader
from capsign_adapter.store.key_readers import KEPT_MS
from support.drafts import NOW

ONE = KeyReader("demo", "orders", "orders-jwt", "spiffe://capsign.test/one", 1, 7, 2, NOW)


def test_fetches_add_up_from_every_replica(store, second):
    store.note_key_readers([ONE], NOW)
    second.note_key_readers([replace(ONE, fetches=3, fetched_ms=NOW - 5)], NOW)
    (found,) = store.key_readers("demo", "orders")
    assert found == replace(ONE, fetches=5)


def test_a_newer_version_begins_the_count_anew_and_an_older_one_takes_nothing_back(store):
    store.note_key_readers([ONE], NOW)
    newer = replace(ONE, version=2, sequence=9, fetches=1, fetched_ms=NOW + 1)
    store.note_key_readers([newer], NOW)
    store.note_key_readers([replace(ONE, fetched_ms=NOW + 2)], NOW)
    assert store.key_readers("demo", "orders") == [replace(newer, fetched_ms=NOW + 2)]


def test_each_grant_and_workload_has_its_row_and_each_key_its_own(store):
    other = replace(ONE, workload=ANONYMOUS, fetched_ms=NOW + 1)
    artifact = replace(ONE, grant="orders-artifact", fetched_ms=NOW + 2)
    store.note_key_readers([ONE, other, artifact, replace(ONE, key="release")], NOW)
    assert store.key_readers("demo", "orders") == [artifact, other, ONE]
    assert store.key_readers("other", "orders") == []


def test_who_was_not_seen_for_long_is_forgotten(store):
    store.note_key_readers([ONE], NOW)
    later = replace(ONE, workload=ANONYMOUS, fetched_ms=NOW + KEPT_MS + 1)
    store.note_key_readers([later], NOW + KEPT_MS + 1)
    assert store.key_readers("demo", "orders") == [later]


def test_it_is_no_decision_and_leaves_epoch_and_log_as_they_are(store):
    before = store.control()
    store.note_key_readers([ONE], NOW)
    after = store.control()
    assert (after.revocation_epoch, after.tree_size) == (
        before.revocation_epoch,
        before.tree_size,
    )
