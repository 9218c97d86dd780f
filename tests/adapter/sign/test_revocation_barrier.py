"""The barrier with a clock that stands still until it is told: every order of events."""

from __future__ import annotations

import threading
from typing import get_type_hints

import pytest
from capsign_adapter.config import Control
from capsign_adapter.sign.revocation_barrier import RevocationBarrier
from capsign_adapter.sign.tickers import NONE_OPEN_SECONDS
from capsign_adapter.store.errors import StoreUnavailableError

LEASE, MARGIN = 3000, 1000


class World:
    """A barrier, its clock, the store's epoch, and a stream that knows whether it was ended."""

    def __init__(self) -> None:
        self.now = 50_000
        self.epoch = 5
        self.ended: list[str] = []
        self.barrier = RevocationBarrier(
            LEASE, MARGIN, lambda: self.epoch_now(), lambda: self.clock()
        )

    def clock(self) -> int:
        return self.now

    def epoch_now(self) -> int:
        if not self.epoch:
            raise StoreUnavailableError("the store cannot be reached")
        return self.epoch

    def ticket(self, name: str = "stream"):
        return self.barrier.ticket(lambda: self.ended.append(name))

    def draining(self, epoch: int) -> Draining:
        return Draining(self, epoch)


class Draining:
    """A drain on a thread of its own."""

    def __init__(self, world: World, epoch: int) -> None:
        self._done = threading.Event()
        self._looked = threading.Semaphore(0)
        inner, self._barrier = world.clock, world.barrier

        def clock() -> int:
            if threading.current_thread() is self._thread:
                self._looked.release()
            return inner()

        self._thread = threading.Thread(target=self._run, args=(epoch,), daemon=True)
        world.clock = clock
        self._thread.start()

    def _run(self, epoch: int) -> None:
        self._barrier.drain(epoch)
        self._done.set()

    def waits(self) -> bool:
        """Whether it is still at it after it has looked a few times more at how things are now."""
        while self._looked.acquire(blocking=False):
            pass
        for _ in range(6):
            if not self._looked.acquire(timeout=10):
                break
        return not self._done.is_set()

    def ends(self) -> bool:
        return self._done.wait(timeout=10)


@pytest.fixture
def world():
    return World()


def test_a_batch_under_the_current_epoch_leaves(world):
    ticket = world.ticket()
    assert ticket.enter(5)
    assert ticket.authorize_release()
    ticket.leave()
    world.barrier.drain(6)


def test_what_holds_nothing_of_the_ledger_may_leave(world):
    assert world.ticket().authorize_release()


def test_a_drain_of_nothing_ends_at_once(world):
    world.barrier.drain(6)


def test_after_a_drain_began_nothing_older_enters(world):
    world.barrier.drain(6)
    ticket = world.ticket()
    assert not ticket.enter(5)
    assert ticket.enter(6)


def test_a_refused_entry_is_not_waited_for(world):
    world.barrier.drain(6)
    world.ticket().enter(5)
    world.barrier.drain(7)


def test_a_drain_waits_for_a_batch_that_is_inside_until_it_is_on_the_wire(world):
    ticket = world.ticket()
    ticket.enter(5)
    drain = world.draining(6)
    assert drain.waits()
    assert ticket.authorize_release(), "it was committed before, and the revocation waits for it"
    assert drain.waits(), "gRPC has it; the wire has not"
    ticket.leave()
    assert drain.ends()


def test_a_drain_waits_for_each_older_batch_and_for_no_newer_one(world):
    one, two, newer = (world.ticket(name) for name in ("one", "two", "newer"))
    one.enter(4)
    two.enter(5)
    newer.enter(6)
    newer.authorize_release()
    drain = world.draining(6)
    one.leave()
    assert drain.waits()
    two.leave()
    assert drain.ends()


def test_a_batch_that_the_ledger_did_not_take_is_not_waited_for(world):
    """The commit found the epoch moved: the pipeline leaves and enters again under the new one."""
    ticket = world.ticket()
    ticket.enter(5)
    drain = world.draining(6)
    ticket.leave()
    assert drain.ends()
    assert ticket.enter(6)
    assert ticket.authorize_release()


def test_a_batch_held_before_its_hand_over_is_cut_off_when_its_lease_ends(world):
    ticket = world.ticket()
    ticket.enter(5)
    drain = world.draining(6)
    world.now += LEASE - 1
    assert drain.waits()
    world.now += 1
    assert drain.ends()
    assert not ticket.authorize_release()
    assert world.ended == [], "nothing of it was handed over, so the stream can go on and tell"


def test_the_epoch_that_moved_back_to_look_the_same_does_not_open_the_fence(world):
    """After a drain the store's word does not count any more, whatever it says."""
    ticket = world.ticket()
    ticket.enter(5)
    world.now += LEASE
    world.barrier.drain(6)
    assert world.epoch == 5
    assert not ticket.authorize_release()


def test_a_commit_slower_than_a_lease_is_released_if_nothing_was_revoked(world):
    ticket = world.ticket()
    ticket.enter(5)
    world.now += 10 * LEASE
    assert ticket.authorize_release()


@pytest.mark.parametrize("epoch", [6, 0])
def test_a_commit_slower_than_a_lease_is_not_released_if_the_epoch_moved_or_nobody_can_say(
    world, epoch
):
    ticket = world.ticket()
    ticket.enter(5)
    world.now += LEASE
    world.epoch = epoch
    assert not ticket.authorize_release()


def test_the_lease_is_enough_while_the_store_is_away(world):
    ticket = world.ticket()
    ticket.enter(5)
    world.epoch = 0
    world.now += LEASE - 1
    assert ticket.authorize_release()


def test_a_second_lease_begins_before_the_store_is_asked(world):
    """A store that takes longer than a lease to say that the epoch holds has said nothing of
    now.
    """
    ticket = world.ticket()
    ticket.enter(5)
    world.now += LEASE

    def slow() -> int:
        world.now += LEASE
        return 5

    world.epoch_now = slow
    assert not ticket.authorize_release()


def test_a_peer_that_does_not_take_its_answer_loses_the_stream_and_holds_a_revocation_no_longer(
    world,
):
    ticket = world.ticket("stalled")
    ticket.enter(5)
    ticket.authorize_release()
    drain = world.draining(6)
    world.now += LEASE - 1
    assert drain.waits()
    assert world.ended == []
    world.now += 1
    assert drain.waits(), "the stream is being ended"
    assert world.ended == ["stalled"]
    world.now += MARGIN // 2
    assert drain.ends()


def test_a_stream_that_was_ended_is_done_as_soon_as_grpc_lets_go_of_it(world):
    ticket = world.ticket()
    ticket.enter(5)
    ticket.authorize_release()
    drain = world.draining(6)
    world.now += LEASE
    assert drain.waits()
    ticket.leave()
    assert drain.ends()


def test_stalled_streams_are_ended_without_any_revocation_or_store(world):
    """A replica that is cut off from the store does not hear of revocations: its leases must end by
    themselves.
    """
    ticket = world.ticket()
    ticket.enter(5)
    ticket.authorize_release()
    world.epoch = 0
    assert world.barrier.expire() == 0
    world.now += LEASE
    assert world.barrier.expire() == 1
    assert world.barrier.expire() == 0, "once"
    assert world.ended == ["stream"]


def test_it_says_whether_any_lease_may_end(world):
    """With none it is looked at less often, and the shortest lease is longer than that."""
    ticket = world.ticket()
    assert not world.barrier.is_open
    ticket.enter(5)
    assert world.barrier.is_open
    ticket.leave()
    assert not world.barrier.is_open
    assert least_lease_s() > NONE_OPEN_SECONDS


def least_lease_s() -> float:
    (bound,) = get_type_hints(Control, include_extras=True)["lease_ms"].__metadata__
    return bound.ge / 1000


def test_an_ended_stream_releases_nothing_more(world):
    ticket = world.ticket()
    ticket.enter(5)
    ticket.authorize_release()
    world.now += LEASE
    world.barrier.expire()
    ticket.leave()
    ticket.enter(5)
    assert not ticket.authorize_release()


def test_a_slow_commit_is_no_stalled_stream(world):
    world.ticket().enter(5)
    world.now += 10 * LEASE
    assert world.barrier.expire() == 0


def test_a_call_that_is_over_before_its_thread_noticed_leaves_nothing_behind(world):
    ticket = world.ticket()
    ticket.close()
    assert not ticket.enter(5)
    world.barrier.drain(6)
    assert world.barrier.expire() == 0


def test_each_batch_of_a_stream_has_a_lease_of_its_own(world):
    ticket = world.ticket()
    for _ in range(5):
        assert ticket.enter(5)
        assert ticket.authorize_release()
        world.now += LEASE - 1
        ticket.leave()
    assert world.barrier.expire() == 0
