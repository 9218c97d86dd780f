"""I6: once `revoke` has answered, no replica releases a signature under what was revoked, whatever
was in flight.

Two replicas on one store, each with connections of its own, over real TLS. One has committed a
signature and is held before it lets it out; the other is asked to revoke. Without the barrier the
same scenario shows the signature that escapes.
"""

from __future__ import annotations

import queue
import threading

import grpc
import pytest
from capsign_adapter.config import Control
from capsign_adapter.sign.revocation_barrier import RevocationBarrier
from capsign_adapter.store.errors import StoreUnavailableError
from capsign_wire.adapter.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    capability_pb2,
    capability_pb2_grpc,
    signing_pb2,
    signing_pb2_grpc,
)
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import algorithms_pb2 as algorithms
from capsign_wire.types.v1 import failures_pb2 as reasons
from capsign_wire.types.v1 import signing_pb2 as types
from support.adapter_rig import APP, OPERATOR, AdapterRig
from support.replica import RunningReplica
from support.signed import only

NEVER_ENDS = Control(poll_ms=50, lease_ms=600_000, lease_margin_ms=1000)
SHORT = Control(poll_ms=50, lease_ms=400, lease_margin_ms=200)


class Hold:
    """Holds the threads of one replica between the end of their commit and the hand-over to
    gRPC.
    """

    def __init__(self, store) -> None:
        self.committed = threading.Event()
        self._go = threading.Event()
        commit = store.commit

        def held(epoch, drafts, now_ms):
            results = commit(epoch, drafts, now_ms)
            self.committed.set()
            assert self._go.wait(30)
            return results

        store.commit = held

    def release(self) -> None:
        self._go.set()


class Looks:
    """Counts how often a revocation has looked at those who lag, and who they were."""

    def __init__(self, store) -> None:
        self.found: queue.Queue = queue.Queue()
        laggards = store.laggards

        def look(epoch):
            found = laggards(epoch)
            self.found.put(len(found))
            return found

        store.laggards = look

    def next(self) -> int:
        return self.found.get(timeout=10)


class Pair:
    """Replica `one` signs, replica `two` revokes."""

    def __init__(self, directory, control: Control) -> None:
        rig = AdapterRig(directory / "store")
        self.running: list[RunningReplica] = []
        for name, parts in (("one", rig), ("two", rig.beside())):
            (directory / name).mkdir()
            authority = self.running[0].authority if self.running else None
            self.running.append(
                RunningReplica(directory / name, parts, authority=authority, control=control)
            )
        self.one, self.two = self.running
        credential = self.one.authority.issue(APP)
        self.channels = [replica.channel(credential) for replica in self.running]
        self.signing = signing_pb2_grpc.SigningServiceStub(self.channels[0])
        capability = capability_pb2_grpc.CapabilityServiceStub(self.channels[0])
        handles = capability.IssueHandles(capability_pb2.IssueHandlesRequest(), timeout=10).handles
        self.handle = {handle.grant: handle for handle in handles}["orders-jwt"]
        self.channels.append(self.two.channel(self.two.authority.issue(OPERATOR)))
        self.admin = admin_pb2_grpc.AdminServiceStub(self.channels[-1])
        self.intent = new_intent_id()

    def request(
        self, intent: bytes = b"", items: int = 1, algorithm=algorithms.ALGORITHM_ED25519
    ) -> signing_pb2.SignRequest:
        return signing_pb2.SignRequest(
            batch_id=1,
            handles=[self.handle.token],
            groups=[
                signing_pb2.SignGroup(
                    algorithm=algorithm,
                    context=types.ContextSuffix(role="issuer"),
                    items=[
                        signing_pb2.SignItem(
                            intent_id=intent or new_intent_id(), input=bytes([at % 256]) * 64
                        )
                        for at in range(items)
                    ],
                )
            ],
        )

    def start_signing(self) -> Future:
        return Future(
            lambda: next(self.signing.Sign(iter([self.request(self.intent)]), timeout=60))
        )

    def sign_again(self, signing=None) -> types.SignedItem:
        (answer,) = (signing or self.signing).Sign(iter([self.request(self.intent)]), timeout=30)
        return answer.groups[0].items[0]

    def start_revoking(self) -> grpc.Future:
        request = admin_pb2.RevokeRequest(kind=admin_pb2.REVOCATION_KIND_GRANT, target="orders-jwt")
        return self.admin.Revoke.future(request, timeout=60)

    def stop(self) -> None:
        for channel in self.channels:
            channel.close()
        for replica in self.running:
            replica.stop()


class Future:
    """What a function returns on a thread of its own."""

    def __init__(self, work) -> None:
        self._answer: queue.Queue = queue.Queue()
        threading.Thread(target=lambda: self._answer.put(_outcome(work)), daemon=True).start()

    def result(self):
        return self._answer.get(timeout=30)

    def done(self) -> bool:
        return not self._answer.empty()


def _outcome(work):
    try:
        return work()
    except grpc.RpcError as error:
        return error


@pytest.fixture
def pair_with(tmp_path):
    made: list[Pair] = []

    def make(control: Control) -> Pair:
        made.append(Pair(tmp_path, control))
        return made[-1]

    yield make
    for pair in made:
        pair.stop()


def signature_in(answer: signing_pb2.SignResponse) -> bytes:
    """The signature that left, or nothing."""
    return only(answer.groups[0].items[0]) if answer.groups else b""


def test_revoke_does_not_answer_before_another_replica_has_let_out_what_it_committed(pair_with):
    pair = pair_with(NEVER_ENDS)
    hold, looks = Hold(pair.one.rig.store), Looks(pair.two.rig.store)
    signing = pair.start_signing()
    assert hold.committed.wait(30)
    revoking = pair.start_revoking()
    assert [looks.next() for _ in range(5)][-1] == 1
    assert not revoking.done()
    hold.release()
    assert revoking.result(timeout=30).revocation_epoch > 1
    # It was handed over before the answer: it is here, or on its way through the kernel.
    assert signature_in(signing.result())
    assert withheld(pair.sign_again())


def escapes_after_revoke(pair: Pair) -> bytes:
    """What the held replica lets out after revoke has answered."""
    hold = Hold(pair.one.rig.store)
    signing = pair.start_signing()
    assert hold.committed.wait(30)
    pair.start_revoking().result(timeout=30)
    assert not signing.done()
    hold.release()
    return signature_in(signing.result())


def test_nothing_is_let_out_after_the_answer_by_a_replica_that_was_held_longer_than_its_lease(
    pair_with,
):
    pair = pair_with(SHORT)
    assert escapes_after_revoke(pair) == b""


def test_nothing_is_let_out_after_the_answer_by_a_replica_that_is_cut_off_from_the_store(pair_with):
    pair = pair_with(SHORT)
    hold, store = Hold(pair.one.rig.store), pair.one.rig.store
    signing = pair.start_signing()
    assert hold.committed.wait(30)

    def broken(*_):
        raise StoreUnavailableError("injected: cut off")

    store.control = store.revocations = store.announce = broken
    pair.start_revoking().result(timeout=30)
    hold.release()
    answer = signing.result()
    assert answer.failure.reason == reasons.REASON_COMMIT_UNKNOWN, (
        "it is in the ledger: nobody may say that it was not done"
    )


def test_without_the_fence_the_same_scenario_shows_a_signature_that_escapes(pair_with, monkeypatch):
    """The test above can fail: a replica that never counts what is inside says at once that it has
    drained.
    """
    monkeypatch.setattr(RevocationBarrier, "enter", lambda *_: True)
    assert escapes_after_revoke(pair_with(SHORT))


def test_without_the_wait_for_others_the_same_scenario_shows_a_signature_that_escapes(pair_with):
    pair = pair_with(NEVER_ENDS)
    pair.two.rig.store.laggards = lambda _: []
    assert escapes_after_revoke(pair)


def test_a_replica_that_died_delays_a_revocation_and_the_next_one_not(pair_with):
    pair = pair_with(SHORT)
    store, looks = pair.two.rig.store, Looks(pair.two.rig.store)
    epoch = store.control().revocation_epoch
    store.announce(b"killed, no word", epoch, epoch, SHORT.lease_ms)
    pair.start_revoking().result(timeout=30)
    assert looks.next() >= 1
    while not looks.found.empty():
        looks.next()
    pair.two.rig.store.announce = _only(pair.two, store.announce)
    pair.start_revoking().result(timeout=30)
    assert store.laggards(store.control().revocation_epoch) == []


def _only(replica, announce):
    def own(replica_id, *rest):
        assert replica_id == replica.replica.state.membership.replica_id
        return announce(replica_id, *rest)

    return own


def test_a_peer_that_does_not_read_loses_its_stream_and_does_not_hold_a_revocation(pair_with):
    """Answers of a megabyte each, which nobody takes: HTTP/2 flow control keeps them in the
    adapter. The lease leaves time to commit so much on a busy machine: what takes longer is not
    handed over, and is small.
    """
    pair = pair_with(Control(poll_ms=50, lease_ms=3000, lease_margin_ms=200))
    stalled = threading.Event()
    barrier = pair.one.replica.state.barrier
    expire = barrier.expire

    def seen() -> int:
        ended = expire()
        if ended:
            stalled.set()
        return ended

    barrier.expire = seen

    def requests():
        while not stalled.is_set():
            yield pair.request(items=256, algorithm=algorithms.ALGORITHM_ML_DSA_65)

    answers = pair.signing.Sign(requests(), timeout=120)
    assert stalled.wait(100), "thousands of signatures are made until then"
    assert pair.start_revoking().result(timeout=30).revocation_epoch > 1
    with pytest.raises(grpc.RpcError):
        list(answers)


def test_a_stored_signature_is_not_told_again_under_what_was_revoked(pair_with):
    pair = pair_with(SHORT)
    first = signature_in(pair.start_signing().result())
    assert first
    pair.start_revoking().result(timeout=30)
    for channel in pair.channels[:2]:
        signing = signing_pb2_grpc.SigningServiceStub(channel)
        again = pair.sign_again(signing)
        assert withheld(again)
        resolve = signing_pb2.ResolveIntentRequest(handle=pair.handle.token, intent_id=pair.intent)
        assert failure_of(signing.ResolveIntent, resolve).reason == reasons.REASON_HANDLE_REVOKED
        unseen = signing_pb2.ResolveIntentRequest(
            handle=pair.handle.token, intent_id=new_intent_id()
        )
        assert failure_of(signing.ResolveIntent, unseen).reason == reasons.REASON_HANDLE_REVOKED
        keys = signing_pb2.GetPublicKeysRequest(
            handle=pair.handle.token,
            algorithm=algorithms.ALGORITHM_ED25519,
            context=types.ContextSuffix(role="issuer"),
        )
        assert failure_of(signing.GetPublicKeys, keys).reason == reasons.REASON_HANDLE_REVOKED
        tag = signing_pb2.VerifyTagRequest(
            handle=pair.handle.token,
            context=types.ContextSuffix(role="issuer"),
            message=b"m",
            tag=bytes(32),
        )
        assert failure_of(signing.VerifyTag, tag).reason == reasons.REASON_HANDLE_REVOKED


def withheld(item: types.SignedItem) -> bool:
    """Signed before, and not told again; and nobody says that it was refused, for it happened."""
    return (
        not item.signatures
        and item.failure.reason == reasons.REASON_COMMIT_UNKNOWN
        and "HANDLE_REVOKED" in item.failure.message
    )


def failure_of(call, request) -> FailureError:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=10)
    failure = FailureError.from_rpc(caught.value)
    assert failure is not None, f"not in our terms: {caught.value}"
    return failure


@pytest.mark.parametrize("control", [NEVER_ENDS, SHORT])
def test_a_stored_signature_on_its_way_is_waited_for_or_kept_in(pair_with, control):
    """ResolveIntent, held after it has read the row: what the ledger gives leaves as a fresh
    signature does.
    """
    pair = pair_with(control)
    assert signature_in(pair.start_signing().result())
    store, read, go = pair.one.rig.store, threading.Event(), threading.Event()
    resolve = store.resolve

    def held(*arguments):
        stored = resolve(*arguments)
        read.set()
        assert go.wait(30)
        return stored

    store.resolve = held
    looks = Looks(pair.two.rig.store)
    request = signing_pb2.ResolveIntentRequest(handle=pair.handle.token, intent_id=pair.intent)
    resolving = Future(lambda: pair.signing.ResolveIntent(request, timeout=60))
    assert read.wait(30)
    revoking = pair.start_revoking()
    assert [looks.next() for _ in range(3)][-1] == 1
    if control is NEVER_ENDS:
        assert not revoking.done()
        go.set()
        revoking.result(timeout=30)
        assert resolving.result().done.items[0].signatures
    else:
        revoking.result(timeout=30)
        go.set()
        failure = FailureError.from_rpc(resolving.result())
        assert failure is not None
        assert failure.reason == reasons.REASON_COMMIT_UNKNOWN


def test_a_replica_that_stops_is_not_waited_for(pair_with):
    pair = pair_with(NEVER_ENDS)
    pair.one.stop()
    pair.running.remove(pair.one)
    assert pair.start_revoking().result(timeout=30).revocation_epoch > 1
