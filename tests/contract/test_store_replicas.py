"""Replicas in the store: what a revocation waits for, on every engine."""

from __future__ import annotations

import threading

from capsign_adapter.model.control import Laggard
from support.drafts import NOW

ONE, TWO = b"1" * 16, b"2" * 16


def names(store, epoch: int) -> set[bytes]:
    return {laggard.replica_id for laggard in store.laggards(epoch)}


def test_nobody_lags_where_nobody_is(store):
    assert store.laggards(10) == []


def test_a_replica_lags_until_it_has_drained(store, second):
    store.announce(ONE, 1, 1, 3000)
    second.announce(TWO, 1, 1, 500)
    epoch, _ = store.revoke(6, "*", lambda _: b"leaf", NOW)
    assert sorted(store.laggards(epoch), key=lambda each: each.replica_id) == [
        Laggard(ONE, 3000),
        Laggard(TWO, 500),
    ]
    second.announce(
        TWO, epoch, 1, 500
    )  # it works under the new epoch, and something of the old one is left in it
    assert names(store, epoch) == {ONE, TWO}
    second.announce(TWO, epoch, epoch, 500)
    assert names(store, epoch) == {ONE}
    assert names(store, epoch - 1) == set()


def test_one_that_has_ended_is_not_waited_for(store, second):
    store.announce(ONE, 1, 1, 3000)
    second.withdraw(ONE)
    second.withdraw(ONE)
    assert store.laggards(2) == []


def test_epochs_never_fall_whatever_the_order_of_two_threads(store):
    store.announce(ONE, 5, 4, 3000)
    store.announce(
        ONE, 4, 5, 3000
    )  # a slower thread, with news that is older in one part and newer in the other
    assert names(store, 6) == {ONE}
    assert names(store, 5) == set()
    assert store.forget_replicas(5) == 0
    store.announce(ONE, 1, 1, 3000)
    assert names(store, 5) == set()


def test_only_those_that_still_work_under_an_older_epoch_are_forgotten(store):
    store.announce(ONE, 1, 1, 3000)
    store.announce(TWO, 2, 1, 3000)
    assert store.forget_replicas(2) == 1
    assert names(store, 2) == {TWO}, (
        "it works under the new epoch: it is alive, and only slow to drain"
    )


def test_one_that_was_forgotten_and_lives_is_back_with_its_next_word(store):
    store.announce(ONE, 1, 1, 3000)
    store.forget_replicas(2)
    store.announce(ONE, 2, 1, 3000)
    assert names(store, 2) == {ONE}


def test_what_a_replica_says_is_there_for_others_when_it_returns(store, second):
    """Announce happens before the replica uses the new epoch: another replica must not miss it."""
    for epoch in range(1, 20):
        thread = threading.Thread(target=store.announce, args=(ONE, epoch, epoch - 1, 3000))
        thread.start()
        thread.join()
        assert names(second, epoch) == {ONE}


def test_replicas_are_no_part_of_the_log(store):
    before = store.control()
    store.announce(ONE, 1, 1, 3000)
    store.withdraw(ONE)
    assert store.control() == before
