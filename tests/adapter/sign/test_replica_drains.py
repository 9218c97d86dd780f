"""A replica's word to the others, and how a revocation waits for theirs, with a clock that is
told.
"""

from __future__ import annotations

import threading

import pytest
from capsign_adapter.store.errors import CommitUnknownError, StoreUnavailableError
from capsign_adapter.store.open import open_store
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2
from support.member import LEASE, MARGIN, Member


@pytest.fixture
def members(tmp_path):
    url = f"sqlite://{tmp_path}/state/store.db"
    made = [Member(open_store(url, create=True)) for _ in range(2)]
    for member in made:
        member.epochs.join()
    yield made
    for member in made:
        member.store.close()


def test_alone_a_revocation_waits_for_nobody(tmp_path):
    member = Member(open_store(f"sqlite://{tmp_path}/state/store.db", create=True))
    member.epochs.join()
    looks = member.pass_time_at_each_look(0)
    member.epochs.enforce(member.revoke())
    assert looks == [0]


def test_a_replica_lags_from_the_revocation_until_it_has_looked(members):
    one, two = members
    epoch = one.revoke()
    assert one.lags(epoch)
    assert two.lags(epoch)
    two.epochs.look()
    assert not two.lags(epoch)


def test_a_replica_that_decides_under_the_new_epoch_still_lags_until_it_has_drained(members):
    one, two = members
    ticket = two.barrier.ticket(lambda: None)
    ticket.enter(two.snapshots.current.epoch)
    epoch = one.revoke()
    two.snapshots.refresh()  # as a batch whose commit found the epoch moved does
    assert two.lags(epoch)
    ticket.leave()
    two.epochs.look()
    assert not two.lags(epoch)


def test_those_who_watch_are_told_even_if_a_batch_saw_the_new_epoch_first(members):
    one, two = members
    with two.changes.following() as news:
        one.revoke()
        two.snapshots.refresh()
        two.epochs.look()
        assert news.wait_for_next(seconds=0)
        two.epochs.look()
        assert not news.wait_for_next(seconds=0)


def test_a_revocation_waits_for_a_replica_that_follows(members):
    one, two = members
    epoch = one.revoke()
    looked = threading.Event()
    laggards = one.store.laggards

    def look(of: int):
        looked.set()
        return laggards(of)

    one.store.laggards = look
    enforcing = threading.Thread(target=one.epochs.enforce, args=(epoch,))
    enforcing.start()
    assert looked.wait(10)
    assert enforcing.is_alive(), "no time passes by the clock, and the other has not looked"
    two.epochs.look()
    enforcing.join(10)
    assert not enforcing.is_alive()


def test_a_dead_replica_delays_one_revocation_by_lease_and_margin_and_is_forgotten(members):
    one, _ = members
    looks = one.pass_time_at_each_look(1000)
    one.epochs.enforce(one.revoke())
    assert looks == [1] * ((LEASE + MARGIN) // 1000)
    del looks[:]
    one.epochs.enforce(one.revoke())
    assert looks == [0]


def test_the_lease_that_counts_is_the_one_that_the_other_replica_announced(tmp_path):
    url = f"sqlite://{tmp_path}/state/store.db"
    one, slow = Member(open_store(url, create=True)), Member(open_store(url), lease_ms=9000)
    one.epochs.join()
    slow.epochs.join()
    looks = one.pass_time_at_each_look(1000)
    one.epochs.enforce(one.revoke())
    assert len(looks) == (9000 + MARGIN) // 1000


def test_one_that_was_taken_for_dead_is_known_again_before_it_decides(members):
    one, two = members
    one.pass_time_at_each_look(10_000)
    first = one.revoke()
    one.epochs.enforce(first)
    assert not two.lags(first)
    assert two.snapshots.refresh().epoch == first
    assert two.lags(first), "it is back, and says itself when it has drained"
    second = one.revoke()
    assert two.lags(second)


def test_a_replica_that_cannot_say_that_it_decides_does_not_decide(members):
    """If the word is not durable the snapshot stays the old one, and a commit under it is
    refused.
    """
    one, two = members
    before = two.snapshots.current
    one.revoke()

    def broken(*_):
        raise StoreUnavailableError("injected")

    announce, two.store.announce = two.store.announce, broken
    with pytest.raises(StoreUnavailableError):
        two.snapshots.refresh()
    assert two.snapshots.current is before
    two.store.announce = announce
    assert two.snapshots.refresh().epoch == before.epoch + 1


def test_one_that_ended_well_is_not_waited_for(members):
    one, two = members
    two.membership.leave()
    looks = one.pass_time_at_each_look(1000)
    one.epochs.enforce(one.revoke())
    assert looks == [0]


@pytest.mark.parametrize(
    "error", [StoreUnavailableError("injected"), CommitUnknownError("injected")]
)
def test_one_that_cannot_say_that_it_ends_ends(members, error):
    one, two = members

    def broken(_):
        raise error

    two.store.withdraw = broken
    two.membership.leave()
    assert two.lags(one.revoke())


@pytest.mark.parametrize("method", ["announce", "laggards", "forget_replicas"])
@pytest.mark.parametrize(
    "error", [StoreUnavailableError("injected"), CommitUnknownError("injected")]
)
def test_a_revocation_that_cannot_see_the_others_does_not_say_that_it_is_in_force(
    members, method, error
):
    one, _ = members
    one.pass_time_at_each_look(10_000)
    epoch = one.revoke()

    def broken(*_):
        raise error

    setattr(one.store, method, broken)
    with pytest.raises(FailureError) as caught:
        one.epochs.enforce(epoch)
    assert caught.value.reason == failures_pb2.REASON_COMMIT_UNKNOWN
