"""The services over real mTLS: streams, news, the log's read side, administration and the drain."""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import threading
import time

import grpc
import pytest
from capsign_adapter.config import Control
from capsign_adapter.front import peer_quota
from capsign_adapter.sign.intent_time import FUTURE_MS
from capsign_evidence import merkle
from capsign_evidence.checkpoint import open_checkpoint
from capsign_evidence.note import VerifierKey
from capsign_evidence.proofs import verify_consistency, verify_inclusion
from capsign_evidence.receipt import verify_signature_receipt
from capsign_evidence.tiles import open_bundle
from capsign_wire.adapter.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    capability_pb2,
    capability_pb2_grpc,
    evidence_pb2,
    evidence_pb2_grpc,
    signing_pb2,
    signing_pb2_grpc,
)
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import algorithms_pb2 as algorithms
from capsign_wire.types.v1 import failures_pb2 as reasons
from capsign_wire.types.v1 import signing_pb2 as types
from support.adapter_rig import APP, AUDITOR, OPERATOR, OTHER, AdapterRig, intent_at, peer
from support.replica import RunningReplica
from support.signed import only, only_of


class App:
    """What an agent does, by hand."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.signing = signing_pb2_grpc.SigningServiceStub(channel)
        self.capability = capability_pb2_grpc.CapabilityServiceStub(channel)
        self.evidence = evidence_pb2_grpc.EvidenceServiceStub(channel)
        self.admin = admin_pb2_grpc.AdminServiceStub(channel)

    def handles(self) -> dict[str, capability_pb2.IssuedHandle]:
        answer = self.capability.IssueHandles(capability_pb2.IssueHandlesRequest(), timeout=10)
        return {handle.grant: handle for handle in answer.handles}

    def request(
        self, *inputs: bytes, batch_id: int = 1, token: bytes = b"", intents=None
    ) -> signing_pb2.SignRequest:
        names = intents or [new_intent_id() for _ in inputs]
        items = [
            signing_pb2.SignItem(intent_id=name, input=data)
            for name, data in zip(names, inputs, strict=True)
        ]
        group = signing_pb2.SignGroup(
            algorithm=algorithms.ALGORITHM_ED25519,
            context=types.ContextSuffix(role="issuer"),
            items=items,
        )
        return signing_pb2.SignRequest(
            batch_id=batch_id, handles=[token or self.handles()["orders-jwt"].token], groups=[group]
        )

    def sign(self, *inputs: bytes, **extra) -> list[types.SignedItem]:
        (answer,) = self.signing.Sign(iter([self.request(*inputs, **extra)]), timeout=10)
        assert not answer.failure.reason
        return list(answer.groups[0].items)


@pytest.fixture
def app(replica):
    with replica.as_(APP) as channel:
        yield App(channel)


@pytest.fixture
def operator(replica):
    with replica.as_(OPERATOR) as channel:
        yield App(channel)


def failure_of(call, *arguments) -> FailureError:
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, timeout=10)
    failure = FailureError.from_rpc(caught.value)
    assert failure is not None, f"not in our terms: {caught.value}"
    return failure


def _eventually(question) -> bool:
    waiting = threading.Event()
    return any(question() or waiting.wait(0.02) for _ in range(500))


def test_renewal_gives_a_workload_no_more_streams(tmp_path):
    """It may hold many certificates at once, each with a key of its own that was counted for
    itself: together they took every place and kept the others out. The others sign, and the
    workload itself still renews its handles.
    """
    replica = RunningReplica(tmp_path, AdapterRig(tmp_path / "store"), streams=64)
    never = threading.Event()

    def silent():
        never.wait(30)
        yield signing_pb2.SignRequest()

    with contextlib.ExitStack() as keys:
        keys.callback(replica.stop)
        keys.callback(never.set)
        greedy = [App(keys.enter_context(replica.as_(APP))) for _ in range(5)]
        held = [app.signing.Sign(silent(), timeout=60) for app in greedy for _ in range(12)]
        for call in held:
            keys.callback(call.cancel)
        assert _eventually(lambda: sum(call.done() for call in held) == 60 - 48)
        refused = [FailureError.from_rpc(call) for call in held if call.done()]
        assert {failure.reason for failure in refused} == {reasons.REASON_OVERLOADED}
        assert {failure.detail.split(" open")[0] for failure in refused} == {"This workload has 48"}
        other = App(keys.enter_context(replica.as_(OTHER)))
        request = other.request(b"m", token=other.handles()["others"].token)
        (answer,) = other.signing.Sign(iter([request]), timeout=10)
        assert answer.groups[0].items[0].signatures
        assert greedy[0].handles()


def test_unary_calls_at_work_hold_a_place_until_they_are_answered(tmp_path, monkeypatch):
    """The store hangs and a workload goes on asking: calls whose request had come were not counted,
    and took every thread.
    """
    monkeypatch.setattr(peer_quota, "calls_of_one_workload", lambda _: 3)
    replica = RunningReplica(tmp_path, AdapterRig(tmp_path / "store"))
    at_work, go_on = threading.Semaphore(0), threading.Event()
    resolve = replica.rig.store.resolve

    def hanging(*arguments, **named):
        at_work.release()
        go_on.wait(20)
        return resolve(*arguments, **named)

    with contextlib.ExitStack() as stack:
        stack.callback(replica.stop)
        stack.callback(go_on.set)
        app = App(stack.enter_context(replica.as_(APP)))
        token = app.handles()["orders-jwt"].token
        replica.rig.store.instead(resolve=hanging)
        asked = [
            signing_pb2.ResolveIntentRequest(handle=token, intent_id=new_intent_id())
            for _ in range(4)
        ]
        running = [app.signing.ResolveIntent.future(each, timeout=30) for each in asked[:3]]
        assert all(at_work.acquire(timeout=10) for _ in running)
        assert failure_of(app.signing.ResolveIntent, asked[3]).reason == reasons.REASON_OVERLOADED
        with replica.as_(OTHER) as channel:
            assert App(channel).handles()
        go_on.set()
        assert {call.result(timeout=10).WhichOneof("resolution") for call in running} == {"never"}
        assert app.handles()


def test_a_stream_answers_batches_in_order_and_one_bad_batch_does_not_end_it(app):
    token = app.handles()["orders-jwt"].token
    bad = signing_pb2.SignRequest(batch_id=2, handles=[token])
    answers = list(
        app.signing.Sign(
            iter([app.request(b"1", batch_id=1), bad, app.request(b"3", batch_id=3)]), timeout=10
        )
    )
    assert [answer.batch_id for answer in answers] == [1, 2, 3]
    assert [bool(answer.groups) for answer in answers] == [True, False, True]
    assert answers[1].failure.reason == reasons.REASON_INPUT_MALFORMED
    assert answers[1].failure.field == "groups"


@pytest.mark.parametrize(
    "wire",
    [b"\xff", b"\x0a\x05ab", b"\x08\x01\x12\x00", b"\x1a\x02\x10\x63", b"\x0d\x00\x00\x00\x00"],
)
def test_bytes_that_are_no_message_are_refused_as_malformed_and_take_no_place(replica, app, wire):
    with replica.as_(APP) as channel:
        stream = channel.stream_stream("/capsign.adapter.v1.SigningService/Sign")
        for _ in range(40):  # more than the server has threads: none may be lost
            (answer,) = stream(iter([wire]), timeout=10)
            assert (
                signing_pb2.SignResponse.FromString(answer).failure.reason
                == reasons.REASON_INPUT_MALFORMED
            )
        unary = channel.unary_unary("/capsign.adapter.v1.CapabilityService/RenewHandles")
        assert failure_of(unary, wire).reason == reasons.REASON_INPUT_MALFORMED
    assert app.sign(b"still here")[0].signatures


def test_a_message_above_the_bound_is_refused_before_it_is_read(app):
    with pytest.raises(grpc.RpcError) as caught:
        list(
            app.signing.Sign(
                iter([signing_pb2.SignRequest(handles=[b"x" * (5 * 1024 * 1024)])]), timeout=10
            )
        )
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_resolve_says_done_refused_or_never_and_never_is_final(app):
    token = app.handles()["orders-jwt"].token
    done, unseen = new_intent_id(), new_intent_id()
    signature = only(app.sign(b"m", intents=[done])[0])

    def resolve(intent: bytes) -> signing_pb2.ResolveIntentResponse:
        return app.signing.ResolveIntent(
            signing_pb2.ResolveIntentRequest(handle=token, intent_id=intent), timeout=10
        )

    assert only_of(resolve(done).done) == signature
    assert resolve(unseen).WhichOneof("resolution") == "never"
    assert app.sign(b"late", intents=[unseen])[0].failure.reason == reasons.REASON_INTENT_NEVER
    assert resolve(unseen).WhichOneof("resolution") == "never"


def test_a_socket_resolves_what_it_sent_itself_alone(app):
    """Two containers of a pod that have one grant: who knew the other's intent id had its
    signature. The record of what was closed names who closed it.
    """
    token = app.handles()["orders-jwt"].token
    done, unseen = new_intent_id(), new_intent_id()
    request = app.request(b"m", intents=[done])
    request.groups[0].caller = "shop"
    [answer] = app.signing.Sign(iter([request]), timeout=10)

    def asked(intent: bytes, caller: str) -> signing_pb2.ResolveIntentRequest:
        return signing_pb2.ResolveIntentRequest(handle=token, intent_id=intent, caller=caller)

    told = app.signing.ResolveIntent(asked(done, "shop"), timeout=10).done
    assert only_of(told) == only(answer.groups[0].items[0])
    refused = failure_of(app.signing.ResolveIntent, asked(done, "proxy"))
    assert refused.reason == reasons.REASON_INTENT_CONFLICT
    assert app.signing.ResolveIntent(asked(unseen, "proxy"), timeout=10).HasField("never")
    receipt = evidence_pb2.GetReceiptRequest(intent_id=unseen, caller="proxy")
    assert app.evidence.GetReceipt(receipt, timeout=10).receipt


def test_an_intent_from_the_future_is_not_closed(replica, app):
    """Sign refuses such an id, and Resolve made a row of it that no collection would ever
    remove.
    """
    token = app.handles()["orders-jwt"].token
    before = replica.rig.store.control().tree_size

    def resolve(intent: bytes) -> signing_pb2.ResolveIntentResponse:
        return app.signing.ResolveIntent(
            signing_pb2.ResolveIntentRequest(handle=token, intent_id=intent), timeout=10
        )

    ahead = intent_at(FUTURE_MS + 60_000)
    assert failure_of(
        app.signing.ResolveIntent, signing_pb2.ResolveIntentRequest(handle=token, intent_id=ahead)
    ).reason == (reasons.REASON_INTENT_FROM_FUTURE)
    assert replica.rig.store.find(APP, [ahead]) == {}
    assert replica.rig.store.control().tree_size == before
    assert resolve(intent_at(FUTURE_MS - 60_000)).WhichOneof("resolution") == "never"


def test_an_intent_that_was_signed_is_told_though_the_clock_stepped_back(app, monkeypatch):
    """An hour back on the adapter's clock, the id lies in the future, and its row tells the truth
    all the same.
    """
    done = new_intent_id()
    signature = only(app.sign(b"m", intents=[done])[0])
    true = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: true() - 3_600_000_000_000)
    request = signing_pb2.ResolveIntentRequest(
        handle=app.handles()["orders-jwt"].token, intent_id=done
    )
    assert only_of(app.signing.ResolveIntent(request, timeout=10).done) == signature


def test_one_workload_cannot_fill_the_ledger_with_intents_that_were_never_sent(tmp_path):
    """Each answer "never" is a row and a leaf: above the rate the workload is told to wait; what
    has a row is told at once.
    """
    rig = AdapterRig(tmp_path / "store")
    replica = RunningReplica(tmp_path, rig, control=Control(poll_ms=50, refusals_per_second=1))
    try:
        with replica.as_(APP) as channel, replica.as_(OTHER) as another:
            app, other = App(channel), App(another)
            token, foreign = app.handles()["orders-jwt"].token, other.handles()["others"].token
            done, closed = new_intent_id(), new_intent_id()
            signature = only(app.sign(b"m", intents=[done])[0])
            size = rig.store.control().tree_size

            def asked(intent: bytes, handle: bytes = token) -> signing_pb2.ResolveIntentRequest:
                return signing_pb2.ResolveIntentRequest(handle=handle, intent_id=intent)

            assert app.signing.ResolveIntent(asked(closed), timeout=10).HasField("never")
            failures = []
            for _ in range(20):
                try:
                    app.signing.ResolveIntent(asked(new_intent_id()), timeout=10)
                except grpc.RpcError as error:
                    failures.append(FailureError.from_rpc(error))
            assert len(failures) >= 10
            assert {failure.reason for failure in failures} == {reasons.REASON_RATE_LIMITED}
            assert all(1 <= failure.retry_after_ms <= 1000 for failure in failures)
            assert rig.store.control().tree_size == size + 21 - len(failures)
            for _ in range(10):
                assert only_of(app.signing.ResolveIntent(asked(done), timeout=10).done) == signature
                assert app.signing.ResolveIntent(asked(closed), timeout=10).HasField("never")
            assert other.signing.ResolveIntent(
                asked(new_intent_id(), foreign), timeout=10
            ).HasField("never")
    finally:
        replica.stop()


def test_one_workload_cannot_keep_store_and_token_busy(tmp_path):
    """Whatever it floods, the rest of it goes on, and so do the others. What was not taken may be
    sent again.
    """
    rig = AdapterRig(tmp_path / "store")
    replica = RunningReplica(tmp_path, rig, control=Control(poll_ms=50, calls_per_second=1))
    try:
        with replica.as_(APP) as channel, replica.as_(OTHER) as another:
            app, other = App(channel), App(another)
            token, context = app.handles()["orders-jwt"].token, types.ContextSuffix(role="issuer")
            boot, size = os.urandom(16), rig.store.control().tree_size

            def keys(transcript: bytes) -> object:
                asked = types.ContextSuffix(role="issuer", transcript=transcript)
                request = signing_pb2.GetPublicKeysRequest(
                    handle=token, algorithm=algorithms.ALGORITHM_ED25519, context=asked
                )
                return app.signing.GetPublicKeys(request, timeout=10)

            def check() -> object:
                return app.signing.VerifyTag(
                    signing_pb2.VerifyTagRequest(handle=token, context=context, tag=b"x" * 32),
                    timeout=10,
                )

            def report(first: int, by: App = app) -> object:
                return by.evidence.SubmitAudit(
                    evidence_pb2.SubmitAuditRequest(batch=audit(boot, first, 1)), timeout=10
                )

            for calls in (
                [lambda: keys(os.urandom(32))] * 20,
                [check] * 20,
                [lambda: report(1)] * 20,
            ):
                failures = []
                for call in calls:
                    try:
                        call()
                    except grpc.RpcError as error:
                        failures.append(FailureError.from_rpc(error))
                limited = [one for one in failures if one.reason == reasons.REASON_RATE_LIMITED]
                assert len(limited) >= 10
                assert all(1 <= one.retry_after_ms <= 1000 for one in limited)
            assert rig.store.control().tree_size == size + 1
            assert app.sign(b"m")[0].signatures
            report(1, other)
    finally:
        replica.stop()


def test_who_is_refused_often_may_still_ask_what_became_of_the_rest(rig):
    """A policy that changed refuses a workload a thousand times; it must be able to close what was
    under way meanwhile.
    """
    flood = rig.sign(*([b"m"] * 1000), handle=b"x" * 100)
    assert flood[-1].failure.reason == reasons.REASON_RATE_LIMITED
    with rig.charges.never(peer(APP)):
        pass


def test_an_intent_of_another_workload_does_not_exist_for_this_one(replica, app):
    """The other workload learns nothing of it, and its tombstone does not touch it."""
    intent = new_intent_id()
    first = app.sign(b"m", intents=[intent])[0]
    with replica.as_(OTHER) as channel:
        other = App(channel)
        request = signing_pb2.ResolveIntentRequest(
            handle=other.handles()["others"].token, intent_id=intent
        )
        assert other.signing.ResolveIntent(request, timeout=10).WhichOneof("resolution") == "never"
    assert only(app.sign(b"m", intents=[intent])[0]) == only(first)


def test_hs256_tags_are_checked_by_the_adapter(app):
    token = app.handles()["orders-jwt"].token
    context = types.ContextSuffix(role="issuer")
    request = app.request(b"m", token=token)
    request.groups[0].algorithm = algorithms.ALGORITHM_HS256
    ((answer,)) = app.signing.Sign(iter([request]), timeout=10)
    tag = only(answer.groups[0].items[0])
    good = signing_pb2.VerifyTagRequest(handle=token, context=context, message=b"m", tag=tag)
    assert app.signing.VerifyTag(good, timeout=10).key.version == 1
    bad = signing_pb2.VerifyTagRequest(handle=token, context=context, message=b"n", tag=tag)
    assert failure_of(app.signing.VerifyTag, bad).reason == reasons.REASON_SIGNATURE_INVALID


def test_renewal_gives_new_handles_and_leaves_out_what_is_gone(app, operator):
    held = app.handles()
    operator.admin.Revoke(
        admin_pb2.RevokeRequest(kind=admin_pb2.REVOCATION_KIND_GRANT, target="thrice"), timeout=10
    )
    request = capability_pb2.RenewHandlesRequest(
        tokens=[held["orders-jwt"].token, held["thrice"].token, b"forged"]
    )
    renewed = app.capability.RenewHandles(request, timeout=10).handles
    assert [handle.grant for handle in renewed] == ["orders-jwt"]
    assert renewed[0].serial != held["orders-jwt"].serial
    assert "thrice" not in app.handles()


def test_a_revocation_is_pushed_to_those_who_watch(app, operator):
    news: queue.Queue = queue.Queue()
    watch = app.capability.Watch(capability_pb2.WatchRequest(), timeout=30)
    threading.Thread(
        target=lambda: [news.put(each) for each in _until_cancelled(watch)], daemon=True
    ).start()
    assert list(news.get(timeout=10).dropped_grants) == []
    operator.admin.Revoke(
        admin_pb2.RevokeRequest(kind=admin_pb2.REVOCATION_KIND_GRANT, target="orders-jwt"),
        timeout=10,
    )
    assert list(news.get(timeout=10).dropped_grants) == ["orders-jwt"]
    watch.cancel()


def test_i6_once_revoke_has_answered_nothing_is_signed_under_it(app, operator):
    token = app.handles()["orders-jwt"].token
    for kind, target in (
        (admin_pb2.REVOCATION_KIND_HANDLE, app.handles()["orders-jwt"].serial.hex()),
        (admin_pb2.REVOCATION_KIND_KEY, "demo/orders"),
    ):
        answer = operator.admin.Revoke(
            admin_pb2.RevokeRequest(kind=kind, target=target), timeout=10
        )
        assert answer.revocation_epoch > 1
    (item,) = app.sign(b"m", token=token)
    assert item.failure.reason == reasons.REASON_HANDLE_REVOKED
    assert "orders-jwt" not in app.handles()


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (admin_pb2.REVOCATION_KIND_HANDLE, "not-hex"),
        (admin_pb2.REVOCATION_KIND_KEY, "demo"),
        (admin_pb2.REVOCATION_KIND_EVERYTHING, "demo"),
        (admin_pb2.REVOCATION_KIND_WORKLOAD, "demo"),
        (admin_pb2.REVOCATION_KIND_WORKLOAD, "spiffe://capsign.test"),
        (admin_pb2.REVOCATION_KIND_WORKLOAD, APP + "/"),
        (admin_pb2.REVOCATION_KIND_GRANT, "Orders JWT"),
        (admin_pb2.REVOCATION_KIND_KEY, "/"),
        (admin_pb2.REVOCATION_KIND_TENANT, "de\nmo"),
        (admin_pb2.REVOCATION_KIND_UNSPECIFIED, "demo"),
        (77, "demo"),
    ],
)
def test_a_typing_error_does_not_look_like_a_revocation(operator, kind, target):
    before = operator.admin.GetStatus(admin_pb2.GetStatusRequest(), timeout=10).revocation_epoch
    request = admin_pb2.RevokeRequest(kind=kind, target=target)
    assert failure_of(operator.admin.Revoke, request).reason == reasons.REASON_INPUT_MALFORMED
    assert (
        operator.admin.GetStatus(admin_pb2.GetStatusRequest(), timeout=10).revocation_epoch
        == before
    )


def test_a_name_that_nobody_knows_is_not_revoked_and_the_answer_names_the_one_that_was_meant(
    app, operator
):
    """Two letters of the grant were swapped: it was recorded as revoked, and everybody went on
    signing under the right one.
    """
    before = operator.admin.GetStatus(admin_pb2.GetStatusRequest(), timeout=10).revocation_epoch
    request = admin_pb2.RevokeRequest(kind=admin_pb2.REVOCATION_KIND_GRANT, target="orders-jtw")
    failure = failure_of(operator.admin.Revoke, request)
    assert failure.reason == reasons.REASON_NOT_FOUND
    assert "'orders-jwt'" in failure.detail
    assert (
        operator.admin.GetStatus(admin_pb2.GetStatusRequest(), timeout=10).revocation_epoch
        == before
    )


def test_administration_needs_a_role(replica, app):
    request = admin_pb2.RevokeRequest(kind=admin_pb2.REVOCATION_KIND_EVERYTHING, target="*")
    assert failure_of(app.admin.Revoke, request).reason == reasons.REASON_ROLE_MISSING
    assert (
        failure_of(app.admin.ListKeys, admin_pb2.ListKeysRequest()).reason
        == reasons.REASON_ROLE_MISSING
    )
    with replica.as_(AUDITOR) as channel:
        auditor = App(channel)
        assert failure_of(auditor.admin.Revoke, request).reason == reasons.REASON_ROLE_MISSING
        keys = auditor.admin.ListKeys(admin_pb2.ListKeysRequest(), timeout=10).keys
    assert [(key.tenant, key.name, key.versions[0].version) for key in keys] == [
        ("demo", "orders", 1),
        ("demo", "release", 1),
    ]


def test_the_log_proves_a_signature_to_somebody_who_trusts_only_its_key(app):
    item = app.sign(b"m")[0]
    answer = app.evidence.GetReceipt(
        evidence_pb2.GetReceiptRequest(leaf_index=item.leaf_index), timeout=10
    )
    key = VerifierKey.parse(
        app.evidence.GetCheckpoint(evidence_pb2.GetCheckpointRequest(), timeout=10).verifier_key
    )
    verify_signature_receipt(answer.receipt, answer.entry, only(item), key)


def test_checkpoints_are_consistent_and_tiles_give_their_root(app):
    key = VerifierKey.parse(
        app.evidence.GetCheckpoint(evidence_pb2.GetCheckpointRequest(), timeout=10).verifier_key
    )

    def head():
        return open_checkpoint(
            app.evidence.GetCheckpoint(evidence_pb2.GetCheckpointRequest(), timeout=10).checkpoint,
            key,
        )

    app.sign(*[b"m"] * 300)
    old = head()
    app.sign(*[b"m"] * 50)
    new = head()
    request = evidence_pb2.GetConsistencyProofRequest(old_size=old.size, new_size=new.size)
    proof = list(app.evidence.GetConsistencyProof(request, timeout=10).hashes)
    verify_consistency(old.size, old.root, new.size, new.root, proof)
    full = app.evidence.GetTile(evidence_pb2.GetTileRequest(level=0, index=0), timeout=10).tile
    rest = app.evidence.GetTile(
        evidence_pb2.GetTileRequest(level=0, index=1, width=new.size - 256), timeout=10
    ).tile
    hashes = [(full + rest)[start : start + 32] for start in range(0, 32 * new.size, 32)]
    assert (
        merkle.Frontier.decode(merkle.Frontier(0, ()).encode()).append(hashes)[0].root() == new.root
    )
    inclusion = evidence_pb2.GetInclusionProofRequest(leaf_index=7, tree_size=new.size)
    proof = list(app.evidence.GetInclusionProof(inclusion, timeout=10).hashes)
    verify_inclusion(7, new.size, hashes[7], proof, new.root)


def test_entries_are_for_readers_and_receipts_for_the_workload_they_name(replica, app):
    item = app.sign(b"m")[0]
    assert (
        failure_of(app.evidence.GetEntries, evidence_pb2.GetEntriesRequest(width=1)).reason
        == reasons.REASON_ROLE_MISSING
    )
    with replica.as_(OTHER) as channel:
        request = evidence_pb2.GetReceiptRequest(leaf_index=item.leaf_index)
        assert (
            failure_of(App(channel).evidence.GetReceipt, request).reason
            == reasons.REASON_ROLE_MISSING
        )
    with replica.as_(AUDITOR) as channel:
        answer = App(channel).evidence.GetEntries(
            evidence_pb2.GetEntriesRequest(width=2), timeout=10
        )
    assert len(open_bundle(answer.entries)) == 2


LARGEST = 2**63 - 1
"""The largest number that a store can hold."""


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("GetTile", evidence_pb2.GetTileRequest(level=3)),
        (
            "GetInclusionProof",
            evidence_pb2.GetInclusionProofRequest(leaf_index=5, tree_size=LARGEST),
        ),
        ("GetInclusionProof", evidence_pb2.GetInclusionProofRequest(leaf_index=5, tree_size=5)),
        ("GetConsistencyProof", evidence_pb2.GetConsistencyProofRequest(old_size=0, new_size=1)),
        ("GetConsistencyProof", evidence_pb2.GetConsistencyProofRequest(old_size=2, new_size=1)),
        ("GetReceipt", evidence_pb2.GetReceiptRequest(leaf_index=LARGEST)),
        ("GetTile", evidence_pb2.GetTileRequest(index=LARGEST)),
    ],
)
def test_questions_beyond_the_log_are_refused(app, method, request_):
    assert failure_of(getattr(app.evidence, method), request_).reason == reasons.REASON_NOT_IN_LOG


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("GetInclusionProof", evidence_pb2.GetInclusionProofRequest(tree_size=LARGEST + 1)),
        ("GetReceipt", evidence_pb2.GetReceiptRequest(leaf_index=LARGEST + 1)),
        ("GetTile", evidence_pb2.GetTileRequest(index=2**64 - 1)),
    ],
)
def test_numbers_that_no_log_can_have_are_refused_as_too_large(app, method, request_):
    failure = failure_of(getattr(app.evidence, method), request_)
    assert failure.reason == reasons.REASON_INPUT_TOO_LARGE


def audit(
    boot: bytes,
    first: int,
    count: int,
    previous: bytes = b"",
    kind: int = evidence_pb2.AUDIT_KIND_INTENT,
) -> bytes:
    records = [
        evidence_pb2.AuditRecord(sequence=first + index, time_ms=1, kind=kind)
        for index in range(count)
    ]
    return evidence_pb2.AuditBatch(
        boot_id=boot, previous=previous, records=records
    ).SerializeToString()


def test_an_agents_batches_are_taken_once_and_in_order(app):
    boot = b"b" * 16
    one = audit(boot, 1, 3)
    two = audit(boot, 4, 2, hashlib.sha256(one).digest())

    def submit(batch: bytes):
        return app.evidence.SubmitAudit(evidence_pb2.SubmitAuditRequest(batch=batch), timeout=10)

    first = submit(one)
    assert first.accepted_through == 3
    assert submit(one) == first
    third = evidence_pb2.SubmitAuditRequest(batch=audit(boot, 9, 1, hashlib.sha256(two).digest()))
    assert failure_of(app.evidence.SubmitAudit, third).reason == reasons.REASON_AUDIT_OUT_OF_ORDER
    assert submit(two).accepted_through == 5


@pytest.mark.parametrize(
    "batch",
    [
        b"\xff\xff",
        audit(b"short", 1, 1),
        audit(b"b" * 16, 0, 1),
        audit(b"b" * 16, 1, 1, kind=0),
        audit(b"b" * 16, 1, 1, kind=99),
        audit(b"b" * 16, 1, 1, previous=b"x"),
        evidence_pb2.AuditBatch(
            boot_id=b"b" * 16,
            records=[
                evidence_pb2.AuditRecord(sequence=1, kind=evidence_pb2.AUDIT_KIND_INTENT),
                evidence_pb2.AuditRecord(sequence=3, kind=evidence_pb2.AUDIT_KIND_INTENT),
            ],
        ).SerializeToString(),
        evidence_pb2.AuditBatch(
            boot_id=b"b" * 16,
            records=[
                evidence_pb2.AuditRecord(
                    sequence=1, kind=evidence_pb2.AUDIT_KIND_INTENT, grant="free text!"
                )
            ],
        ).SerializeToString(),
        audit(b"b" * 16, 1, 1) + b"\xfa\x3f\x05hello",
    ],
)
def test_i9_a_batch_that_could_leak_or_lie_is_refused(app, batch):
    failure = failure_of(app.evidence.SubmitAudit, evidence_pb2.SubmitAuditRequest(batch=batch))
    assert failure.reason == reasons.REASON_INPUT_MALFORMED


def test_a_draining_adapter_says_so_and_finishes_what_it_has(replica, app):
    news: queue.Queue = queue.Queue()
    watch = app.capability.Watch(capability_pb2.WatchRequest(), timeout=30)
    threading.Thread(
        target=lambda: [news.put(each) for each in _until_cancelled(watch)], daemon=True
    ).start()
    news.get(timeout=10)
    requests: queue.Queue = queue.Queue()
    answers = app.signing.Sign(iter(requests.get, None), timeout=30)
    requests.put(app.request(b"m"))
    assert next(answers).groups[0].items[0].signatures
    assert replica.replica.listeners.streams.drain(5.0, replica.replica.state.changes.announce)
    assert news.get(timeout=10).draining
    with pytest.raises(grpc.RpcError):
        next(answers)
    requests.put(None)


def _until_cancelled(watch):
    try:
        yield from watch
    except grpc.RpcError:
        return


def test_what_happened_is_counted_by_outcome_and_reason(replica, app):
    token = app.handles()["orders-jwt"].token
    request = app.request(b"1", b"2", token=token)
    request.groups.add().CopyFrom(app.request(b"3", token=token).groups[0])
    request.groups[1].context.role = "thief"
    list(app.signing.Sign(iter([request]), timeout=10))
    seen = replica.metrics.snapshot()
    assert seen["capsign.calls"]["done", "NONE"] == 2
    assert seen["capsign.calls"]["refused", "CONTEXT_NOT_ALLOWED"] == 1
    assert seen["capsign.refusals"]["CONTEXT_NOT_ALLOWED",] == 1
    assert seen["capsign.call.duration"]["Ed25519",] == 3
