"""A token or a store that hangs keeps each caller for its own wait: nobody queues without end
behind those who came before.
"""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from capsign_adapter.decide.authority_schedule import Lifetimes
from capsign_adapter.enrol.authority import Authority
from capsign_adapter.enrol.roll import Realm
from capsign_adapter.provisioning import provision_all
from capsign_adapter.sign.checkpoints import Checkpoints
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.sign.snapshot import Snapshots
from capsign_adapter.store.errors import StoreUnavailableError
from capsign_wire.adapter.v1 import admin_pb2
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons


class Hanging:
    """A method of something that stands still for whoever comes first, until it is let go."""

    def __init__(self, owner, name: str) -> None:
        self.reached, self.calls = threading.Event(), 0
        self._go_on, self._method = threading.Event(), getattr(owner, name)
        owner.instead(**{name: self})

    def __call__(self, *arguments):
        self.calls += 1
        if self.calls == 1:
            self.reached.set()
            assert self._go_on.wait(30)
        return self._method(*arguments)

    def let_go(self) -> None:
        self._go_on.set()


@pytest.fixture
def threads():
    with ThreadPoolExecutor(8) as pool:
        yield pool


BRIEF_S = 0.05
"""How long nobody waits who has to."""


def revoke(rig) -> None:
    rig.store.revoke(admin_pb2.REVOCATION_KIND_GRANT, "orders-jwt", lambda _: b"leaf", now_ms())


def test_a_checkpoint_that_hangs_keeps_nobody_else_for_ever(rig, threads):
    """One workload asked for checkpoints while the HSM hung: each call waited for all before it,
    and held a thread meanwhile.
    """
    checkpoints = Checkpoints(rig.store, rig.token, "capsign.test/log", turn_s=BRIEF_S)
    hanging = Hanging(rig.token, "sign")
    first = threads.submit(checkpoints.current, now_ms())
    assert hanging.reached.wait(30)
    with pytest.raises(FailureError) as caught:
        checkpoints.current(now_ms())
    assert caught.value.reason == reasons.REASON_OVERLOADED
    hanging.let_go()
    assert first.result(30) == checkpoints.current(now_ms())


def test_those_who_waited_for_a_checkpoint_share_it(rig, threads):
    hanging = Hanging(rig.token, "sign")
    waiting = [threads.submit(rig.checkpoints.current, now_ms())]
    assert hanging.reached.wait(30)
    waiting += [threads.submit(rig.checkpoints.current, now_ms()) for _ in range(7)]
    hanging.let_go()
    assert len({each.result(30).note for each in waiting}) == 1
    assert hanging.calls == 1


def test_a_look_at_the_epoch_that_hangs_keeps_nobody_else(rig, threads):
    hanging = Hanging(rig.store, "control")
    first = threads.submit(rig.snapshots.refresh)
    assert hanging.reached.wait(30)
    assert threads.submit(rig.snapshots.refresh).result(30) is rig.snapshots.current
    hanging.let_go()
    assert first.result(30) is rig.snapshots.current


def test_a_new_snapshot_that_hangs_fails_closed(rig, threads):
    """Decisions under the old epoch must not go on, and those that wait for the new one must not
    wait for ever.
    """
    snapshots = Snapshots(rig.store, turn_s=BRIEF_S)
    old = snapshots.current
    revoke(rig)
    hanging = Hanging(rig.store, "revocations")
    first = threads.submit(snapshots.refresh)
    assert hanging.reached.wait(30)
    with pytest.raises(StoreUnavailableError):
        snapshots.refresh()
    hanging.let_go()
    assert first.result(30) is snapshots.refresh()
    assert snapshots.current.epoch == old.epoch + 1


@pytest.mark.parametrize("name", ["promise_authority", "authorities"])
def test_a_promise_that_hangs_keeps_nobody_else_for_ever(rig, threads, name):
    realm = Realm(
        rig.policy.trust_domain,
        lambda: rig.policy.digest,
        Lifetimes(3_600_000, 365 * 86_400_000, 600_000),
    )
    provision_all(rig.policy, rig.token, rig.store, now_ms(), realm)
    authority = Authority(rig.token, rig.store, realm, turn_s=BRIEF_S)
    (row,) = authority.rows()
    spki = rig.token.public_key(row.label)
    hanging = Hanging(rig.store, name)
    first = threads.submit(authority.issue, "spiffe://capsign.test/a", spki, now_ms())
    assert hanging.reached.wait(30)
    with pytest.raises(FailureError) as caught:
        authority.issue("spiffe://capsign.test/b", spki, now_ms())
    assert caught.value.reason == reasons.REASON_STORE_UNAVAILABLE
    hanging.let_go()
    assert first.result(30).authority == row.version


class Yielding:
    """How many have yielded now, and so hold no turn."""

    def __init__(self) -> None:
        self.now = 0

    @contextlib.contextmanager
    def __call__(self):
        self.now += 1
        try:
            yield
        finally:
            self.now -= 1


def test_who_makes_a_checkpoint_or_waits_for_one_has_no_turn(rig, threads):
    """A token that hangs would keep all calls of the tenant from computing."""
    yielded = Yielding()
    made = Checkpoints(rig.store, rig.token, "capsign.test/log", yielded)
    hanging = Hanging(rig.token, "sign")
    first = threads.submit(made.current, now_ms())
    assert hanging.reached.wait(30)
    assert yielded.now == 1
    hanging.let_go()
    first.result(30)
    assert yielded.now == 0


def test_who_reads_a_snapshot_or_waits_for_one_has_no_turn(rig, threads):
    yielded = Yielding()
    snapshots = Snapshots(rig.store, yielded=yielded)
    revoke(rig)
    hanging = Hanging(rig.store, "revocations")
    first = threads.submit(snapshots.refresh)
    assert hanging.reached.wait(30)
    assert yielded.now == 1
    hanging.let_go()
    first.result(30)
    assert yielded.now == 0
    assert snapshots.refresh() is snapshots.current
    assert yielded.now == 0
