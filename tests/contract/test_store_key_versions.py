"""Key versions as stores keep them, beyond what tests/contract/test_store.py says."""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import replace

import pytest
from capsign_adapter.model.key_versions import KeyClaim, KeyVersionRow, moved
from capsign_adapter.model.lifecycle import KEY_VERSION, KeyEvent
from capsign_adapter.store import schema
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

NOW = 1_790_000_000_000

PUBLICATION = "publication of key versions"
"""The migration that made room for publications."""

_OLD_ROW = (
    "INSERT INTO key_versions (tenant, key_name, version, state, algorithms, label, check_value,"
    " created_ms, activated_ms, activation_epoch, derived)"
    " VALUES ('shop', ?, 1, ?, '1', ?, ?, ?, ?, ?, 1)"
)


def test_versions_of_an_earlier_release_count_as_published_when_they_were_activated():
    database = sqlite3.connect(":memory:")
    for migration in schema.MIGRATIONS:
        if migration.name == PUBLICATION:
            database.execute(_OLD_ROW, ("orders", 2, "orders", b"8 bytes!", NOW, NOW + 5, 1))
            database.execute(_OLD_ROW, ("refunds", 1, "refunds", b"8 bytes!", NOW, 0, 0))
        for statement in migration.render("sqlite"):
            database.execute(statement)
    found = database.execute(
        "SELECT published_ms, since_ms, activation_epoch FROM key_versions ORDER BY id"
    )
    assert found.fetchall() == [(NOW + 5, NOW + 5, 1), (0, NOW, 0)]


def made(version: int = 1) -> KeyVersionRow:
    label = f"capsign/shop/orders/{version}"
    return KeyVersionRow(
        "shop", "orders", version, KEY_VERSION.initial, (1,), label, b"8 bytes!", NOW
    )


def claim(version: int = 1, holder: bytes = b"me", until_ms: int = NOW + 100) -> KeyClaim:
    return KeyClaim("shop", "orders", version, holder.ljust(16, b"-"), until_ms)


def leaf(epoch: int) -> bytes:
    return b"entry at %d" % epoch


def refused(call, *arguments) -> str:
    """What the refusal says."""
    with pytest.raises(FailureError) as caught:
        call(*arguments)
    assert caught.value.reason == failures_pb2.REASON_ILLEGAL_TRANSITION
    return caught.value.detail


def test_one_holder_has_a_key_and_its_claim_ends_with_the_row(store, second):
    mine = store.claim_key(claim(), 0, NOW)
    assert mine == claim(1)
    assert "being made by somebody else" in refused(
        second.claim_key, claim(holder=b"you"), 0, NOW + 99
    )
    assert second.claim_key(replace(claim(), key="refunds"), 0, NOW).version == 1
    store.end_key_claim(replace(claim(), key="refunds"))
    before = store.control().revocation_epoch
    assert store.add_key_version(made(1), leaf, NOW, mine.holder) == (before + 1, 0)
    assert second.key_claims() == []
    assert "is 1 by now" in refused(second.claim_key, claim(holder=b"you"), 0, NOW)
    assert second.claim_key(claim(holder=b"you"), 1, NOW).version == 2


def test_of_replicas_that_claim_at_once_one_does(store, second):
    together, outcomes = threading.Barrier(2), []

    def take(one, holder) -> None:
        together.wait()
        try:
            outcomes.append(str(one.claim_key(claim(holder=holder), 0, NOW).version))
        except FailureError as error:
            outcomes.append(error.row.name)

    threads = [
        threading.Thread(target=take, args=each) for each in ((store, b"me"), (second, b"you"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["1", "ILLEGAL_TRANSITION"]


@pytest.mark.parametrize("faster", [1, 2])
def test_a_key_has_one_first_version_whoever_records_it_first(store, second, faster):
    """The first claim was over before its holder was: both had made one, each with its own number,
    and so with its own activation epoch.
    """
    claims = {1: store.claim_key(claim(), 0, NOW)}
    late = claim(holder=b"you", until_ms=NOW + 300)
    claims[2] = second.claim_key(late, 0, NOW + 100)

    def record(version: int) -> None:
        first = moved(made(version), KeyEvent.ACTIVATE, NOW, version)
        store.add_key_version(first, leaf, NOW, claims[version].holder)

    record(faster)
    assert "another process made it" in refused(record, 3 - faster)
    assert [row.version for row in store.key_versions()] == [faster]


def test_a_number_that_was_claimed_is_not_given_again_while_its_object_may_be_there(store):
    store.add_key_version(made(4), leaf, NOW)
    assert store.claim_key(claim(), 4, NOW).version == 5
    again = store.claim_key(claim(holder=b"you", until_ms=NOW + 300), 4, NOW + 100)
    assert again.version == 6
    assert [(one.version, one.holder[:3]) for one in store.key_claims()] == [
        (5, b"me-"),
        (6, b"you"),
    ]
    store.end_key_claim(again)
    assert store.claim_key(claim(version=9, until_ms=NOW + 300), 4, NOW + 100).version == 9


def test_a_maker_that_was_too_slow_records_nothing_once_its_claim_is_adopted(store, second):
    """Else there were a row of a key whose object somebody else has cleared away."""
    mine = store.claim_key(claim(), 0, NOW)
    you = b"you".ljust(16, b"-")
    assert "looks after" in refused(second.adopt_key_claim, mine, you, NOW + 200, NOW + 99)
    adopted = second.adopt_key_claim(mine, you, NOW + 200, NOW + 100)
    assert "looks after" in refused(second.adopt_key_claim, mine, you, NOW + 300, NOW + 250)
    before = store.control()
    assert "too long" in refused(store.add_key_version, made(1), leaf, NOW + 100, mine.holder)
    store.end_key_claim(mine)
    assert second.key_claims() == [adopted]
    second.end_key_claim(adopted)
    assert "too long" in refused(store.add_key_version, made(1), leaf, NOW + 100, mine.holder)
    assert (store.key_versions(), store.control()) == ([], before)


def test_what_is_destroyed_is_shown_to_be_gone_once(store, second):
    row = made()
    store.add_key_version(row, leaf, NOW)
    assert "not destroyed" in refused(store.prove_key_gone, row, leaf, NOW)
    store.move_key_version(row, KeyEvent.DESTROY, leaf, NOW + 1)
    (destroyed,) = store.key_versions()
    before = store.control().revocation_epoch
    assert store.prove_key_gone(destroyed, leaf, NOW + 2) == (before + 1, 2)
    assert second.key_versions() == [replace(destroyed, gone_ms=NOW + 2)]
    assert "known to be gone" in refused(second.prove_key_gone, destroyed, leaf, NOW + 3)
    assert (store.control().revocation_epoch, store.control().tree_size) == (before + 1, 3)
