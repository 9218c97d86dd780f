"""I6 for one version of a key, as linearizability: once `revoke` has answered, no replica hands
over a signature of that version, whatever was in flight.

Two replicas with servers of their own on one store, and callers at each who sign, and ask for what
was signed, without a pause. A round revokes the only version with `AdminService.Revoke`, waits
until every caller has been answered, so that nothing is in flight any more that began before, and
has it lifted by two people. Two orders are held against it: that in which the replicas hand answers
to gRPC and `revoke` answers (`support/release_order.py`), and that of the log. Now and then a
thread is kept, after its commit, until `revoke` has answered or a while is over. With each part of
the fence taken away the same rounds show signatures that escape.
"""

from __future__ import annotations

import os
import queue
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

import grpc
import pytest
from capsign_adapter.config import Control
from capsign_adapter.store.errors import EpochMovedError
from capsign_evidence.leaf_kinds import Act
from capsign_evidence.leaf_reader import Admin, Signed, decode
from capsign_wire.adapter.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    approvals_pb2,
    approvals_pb2_grpc,
    capability_pb2,
    capability_pb2_grpc,
    revocations_pb2,
    revocations_pb2_grpc,
    signing_pb2_grpc,
)
from capsign_wire.adapter.v1 import signing_pb2 as pb
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import algorithms_pb2 as algorithms
from capsign_wire.types.v1 import signing_pb2 as types
from support.adapter_rig import APP, APPROVER, OPERATOR, POLICY, RESPONDER, AdapterRig
from support.release_order import ReleaseOrder, versions_in
from support.replica import RunningReplica

pytestmark = pytest.mark.system

ROUNDS = int(os.environ.get("CAPSIGN_I6_ROUNDS", "8"))
"""`make test-long` plays a thousand on each store."""

SIGNERS, ITEMS = 3, 4
"""Callers who sign at each replica, and how many signatures they ask for at once."""

KEPT_S, ONE_IN = 0.1, 16
"""How long a thread is kept after its commit, and one in how many."""

CONTROL = Control(
    poll_ms=20, lease_ms=60_000, evidence_mib_per_day=100_000, work_ms_per_second=100_000
)
"""A lease that outlasts each pause of a busy machine: who is in flight is waited for."""

LONG = POLICY.replace("ttl: 15m", "ttl: 12h")
KIND, VERSION, TARGET = admin_pb2.REVOCATION_KIND_KEY_VERSION, 1, "demo/orders/1"
PATIENCE_S = 60


class Phase(NamedTuple):
    """A round, and whether the version is revoked in all of this part of it."""

    number: int
    revoked: bool


class Caller:
    """A workload at one replica."""

    def __init__(self, replica: RunningReplica, ends: ExitStack) -> None:
        channel = ends.enter_context(replica.as_(APP))
        capability = capability_pb2_grpc.CapabilityServiceStub(channel)
        asked = capability_pb2.IssueHandlesRequest()
        handles = capability.IssueHandles(asked, timeout=PATIENCE_S).handles
        self._token = next(one.token for one in handles if one.grant == "orders-jwt")
        self._signing = signing_pb2_grpc.SigningServiceStub(channel)
        self._requests: queue.Queue[pb.SignRequest | None] = queue.Queue()
        ends.callback(self._requests.put, None)
        self._answers: Iterator[pb.SignResponse] | None = None

    def sign(self, intent: bytes = b"") -> pb.SignResponse:
        """Over one stream, one batch after the other."""
        if self._answers is None:
            self._answers = self._signing.Sign(iter(self._requests.get, None))
        intents = [intent] if intent else [new_intent_id() for _ in range(ITEMS)]
        group = pb.SignGroup(
            algorithm=algorithms.ALGORITHM_ED25519,
            context=types.ContextSuffix(role="issuer"),
            items=[pb.SignItem(intent_id=one, input=b"message") for one in intents],
        )
        self._requests.put(pb.SignRequest(batch_id=1, handles=[self._token], groups=[group]))
        return next(self._answers)

    def resolve(self, intent: bytes) -> pb.ResolveIntentResponse:
        """What was signed before, once more; nothing if it may not be told."""
        request = pb.ResolveIntentRequest(handle=self._token, intent_id=intent)
        with suppress(grpc.RpcError):
            return self._signing.ResolveIntent(request, timeout=PATIENCE_S)
        return pb.ResolveIntentResponse()


class People:
    """Those who revoke and lift, at one replica."""

    def __init__(self, replica: RunningReplica, ends: ExitStack) -> None:
        responder, operator, approver = (
            ends.enter_context(replica.as_(who)) for who in (RESPONDER, OPERATOR, APPROVER)
        )
        self._revoking = admin_pb2_grpc.AdminServiceStub(responder)
        self._proposing = revocations_pb2_grpc.RevocationServiceStub(operator)
        self._approving = approvals_pb2_grpc.ApprovalServiceStub(approver)

    def revoke(self) -> int:
        """The epoch of which it answers that it is in force."""
        asked = admin_pb2.RevokeRequest(kind=KIND, target=TARGET)
        return self._revoking.Revoke(asked, timeout=PATIENCE_S).revocation_epoch

    def lift(self) -> None:
        asked = revocations_pb2.ProposeLiftRequest(kind=KIND, target=TARGET)
        proposed = self._proposing.ProposeLift(asked, timeout=PATIENCE_S)
        approved = approvals_pb2.ApproveRequest(id=proposed.proposal_id, digest=proposed.digest)
        self._approving.Approve(approved, timeout=PATIENCE_S)


class Rounds:
    """Callers at two replicas who never pause, and one round after the other."""

    def __init__(self, *running: RunningReplica) -> None:
        self.order = ReleaseOrder(VERSION)
        self.escaped: list[int] = []
        """Rounds in which the version's signatures were handed over after the answer, or came back
        from a call that began after it.
        """
        self._running = running
        self._moved = threading.Condition()
        self._phase = Phase(0, revoked=False)
        self._answered: set[threading.Thread] = set()
        self._revoked = threading.Event()
        self._broken: list[BaseException] = []
        self._over = False
        for replica in running:
            self.order.watch(replica.replica)
            self._keep_some(replica.rig.store)

    def _keep_some(self, store: Any) -> None:
        """Pauses, as a scheduler may make them, where they do most harm."""
        chance = random.Random()

        def kept(call: Callable) -> Callable:
            def paused(*arguments: Any) -> Any:
                result = call(*arguments)
                if not chance.randrange(ONE_IN):
                    self._revoked.wait(KEPT_S)
                return result

            return paused

        store.instead(commit=kept(store.commit), resolve=kept(store.resolve))

    def run(self, rounds: int, *, until_one_escapes: bool = False) -> None:
        with ExitStack() as ends:
            people = [People(replica, ends) for replica in self._running]
            threads = [
                threading.Thread(target=self._guarded, args=(work, Caller(replica, ends)))
                for replica in self._running
                for work in [self._sign] * SIGNERS + [self._resolve]
            ]
            for thread in threads:
                thread.start()
            try:
                self._enter(Phase(0, revoked=False), threads)
                for number in range(1, rounds + 1):
                    self._round(number, people[number % 2], people[(number + 1) % 2], threads)
                    if until_one_escapes and self.escaped:
                        break
            finally:
                self._over = True
                for thread in threads:
                    thread.join()
        if self._broken:
            raise self._broken[0]

    def _round(
        self, number: int, here: People, there: People, threads: list[threading.Thread]
    ) -> None:
        epoch = here.revoke()
        self._revoked.set()
        self._enter(Phase(number, revoked=True), threads)
        lifted_from = self.order.now()
        with self._moved:
            self._phase = Phase(number, revoked=False)
        self._revoked.clear()
        there.lift()
        if self.order.released_between(epoch, lifted_from):
            self.escaped.append(number)
        self._enter(Phase(-number, revoked=False), threads)

    def _enter(self, phase: Phase, threads: list[threading.Thread]) -> None:
        """From now on it is so; returns once everybody was answered to a call that began in it, and
        where it is not revoked, with a signature.
        """
        with self._moved:
            self._answered.clear()
            self._phase = phase
            everybody = self._moved.wait_for(
                lambda: self._broken or self._answered.issuperset(threads), timeout=PATIENCE_S
            )
            assert everybody, f"not answered in {phase}"

    def _guarded(self, work: Callable[[Caller], None], caller: Caller) -> None:
        try:
            work(caller)
        except BaseException as error:
            with self._moved:
                self._broken.append(error)
                self._moved.notify_all()

    def _sign(self, caller: Caller) -> None:
        while not self._over:
            self._call(caller.sign)

    def _resolve(self, caller: Caller) -> None:
        """Asks, without an end, for what was signed before anything was revoked."""
        intent = new_intent_id()
        self._call(lambda: caller.sign(intent))
        while not self._over:
            self._call(lambda: caller.resolve(intent))

    def _call(self, call: Callable[[], Any]) -> None:
        began = self._phase
        signed = VERSION in versions_in(call())
        with self._moved:
            if self._phase != began:
                return
            if began.revoked and signed:
                self.escaped.append(began.number)
            if began.revoked or signed:
                self._answered.add(threading.current_thread())
                self._moved.notify_all()


def misplaced(rig: AdapterRig) -> int:
    """How many entries of signatures stand in the log after a revocation of the version and before
    the next lift.
    """
    found, revoked, size = 0, False, rig.store.control().tree_size
    for start in range(0, size, 1000):
        for entry in map(decode, rig.store.entries(start, 1000)):
            match entry:
                case Admin(act=Act.KEY_VERSION_REVOKED | Act.REVOCATION_LIFTED as act):
                    revoked = act is Act.KEY_VERSION_REVOKED
                case Signed(group=group):
                    found += revoked and group.key_version == VERSION
    return found


@pytest.fixture
def running(tmp_path, place):
    """Two replicas on one store and one token."""
    with ExitStack() as ends:
        rig = AdapterRig(tmp_path / "rig", LONG, place.url, place.password_file)
        one = RunningReplica(tmp_path, rig, control=CONTROL)
        ends.callback(one.stop)
        beside = rig.beside()
        two = RunningReplica(tmp_path, beside, authority=one.authority, control=CONTROL)
        ends.callback(two.stop)
        yield one, two


def test_i6_no_signature_of_a_version_is_released_after_its_revocation_has_answered(running):
    rounds = Rounds(*running)
    rounds.run(ROUNDS)
    assert rounds.escaped == []
    assert misplaced(running[0].rig) == 0
    assert rounds.order.signed >= ROUNDS, "what was lifted signs again"


def without_waiting_for_what_is_inside(running) -> None:
    for replica in running:
        replica.replica.state.barrier.drain = lambda _: None


def without_counting_who_goes_in(running) -> None:
    for replica in running:
        replica.replica.state.barrier.enter = lambda *_: True


def without_waiting_for_the_other_replica(running) -> None:
    for replica in running:
        replica.rig.store.instead(laggards=lambda _: [])


@pytest.mark.parametrize(
    "broken",
    [
        without_waiting_for_what_is_inside,
        without_counting_who_goes_in,
        without_waiting_for_the_other_replica,
    ],
)
def test_i6_without_a_part_of_the_fence_the_same_rounds_show_what_escapes(running, broken):
    broken(running)
    rounds = Rounds(*running)
    rounds.run(20, until_one_escapes=True)
    assert rounds.escaped != []


def test_i6_without_the_comparison_of_the_epoch_the_log_shows_what_came_too_late(running):
    """One replica commits whatever it has decided. The barrier does not let it out."""
    store = running[0].rig.store
    commit = store.commit

    def anyhow(_: int, drafts: Any, now_ms: int) -> Any:
        while True:
            with suppress(EpochMovedError):
                return commit(store.control().revocation_epoch, drafts, now_ms)

    store.instead(commit=anyhow)
    Rounds(*running).run(5)
    assert misplaced(running[0].rig) > 0
