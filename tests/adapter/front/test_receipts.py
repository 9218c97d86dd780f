"""Receipts by intent, and the agents' batches for whoever copies the log, over real mTLS."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager

import grpc
import pytest
from capsign_adapter.sign.log_files import batch_page
from capsign_evidence.note import VerifierKey
from capsign_evidence.receipt import verify_signature_receipt
from capsign_evidence.tiles import open_batch_file
from capsign_wire.adapter.v1 import evidence_pb2 as pb
from capsign_wire.adapter.v1 import evidence_pb2_grpc
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import failures_pb2 as reasons
from support.adapter_rig import APP, AUDITOR, OTHER
from support.signed import only


@contextmanager
def asked_by(replica, who):
    with replica.as_(who) as channel:
        yield evidence_pb2_grpc.EvidenceServiceStub(channel)


def receipt(stub, **request) -> pb.GetReceiptResponse:
    return stub.GetReceipt(pb.GetReceiptRequest(**request), timeout=10)


def refusal(stub, **request) -> FailureError:
    with pytest.raises(grpc.RpcError) as caught:
        receipt(stub, **request)
    failure = FailureError.from_rpc(caught.value)
    assert failure is not None
    return failure


def refused(stub, **request) -> int:
    return refusal(stub, **request).reason


@pytest.fixture
def signed(replica):
    """An intent, the signature that it got, and its leaf."""
    intent = new_intent_id()
    [item] = replica.rig.sign(b"message", intents=[intent])
    return intent, only(item), item.leaf_index


def test_a_workload_has_the_receipt_of_its_intent(replica, signed):
    intent, value, leaf = signed
    with asked_by(replica, APP) as stub:
        answer = receipt(stub, intent_id=intent)
    key = VerifierKey.parse(answer.verifier_key)
    record = verify_signature_receipt(answer.receipt, answer.entry, value, key)
    assert record.intent_id == intent
    assert f"\nindex {leaf}\n".encode() in answer.receipt


def test_anothers_intent_is_for_readers(replica, signed):
    intent, _, leaf = signed
    with asked_by(replica, OTHER) as stub:
        assert refused(stub, intent_id=intent) == reasons.REASON_NOT_IN_LOG
        assert refused(stub, intent_id=intent, workload=APP) == reasons.REASON_ROLE_MISSING
        assert refused(stub, intent_id=intent, leaf_index=leaf) == reasons.REASON_ROLE_MISSING
    with asked_by(replica, AUDITOR) as stub:
        assert receipt(stub, intent_id=intent, workload=APP).receipt


def test_an_intent_that_left_the_ledger_is_found_by_its_leaf(replica, signed):
    """The ledger keeps an intent for a day; the log keeps its entry for ever."""
    intent, value, leaf = signed
    replica.rig.store.find = lambda *_: {}
    with asked_by(replica, APP) as stub:
        answer = receipt(stub, intent_id=intent, leaf_index=leaf)
        key = VerifierKey.parse(answer.verifier_key)
        verify_signature_receipt(answer.receipt, answer.entry, value, key)
        assert refused(stub, intent_id=intent) == reasons.REASON_NOT_IN_LOG
        other = new_intent_id()
        assert refused(stub, intent_id=other, leaf_index=leaf) == reasons.REASON_NOT_IN_LOG
        assert refused(stub, intent_id=other, leaf_index=2**62) == reasons.REASON_NOT_IN_LOG


def test_a_socket_has_the_receipts_of_what_it_sent_itself_alone(replica):
    """Two containers of a pod are one workload to the adapter: who knew the other's intent id had
    its receipt. An intent that is the neighbour's is answered word for word as one that nobody
    sent, before anything is proved, and by its leaf as by the ledger.
    """
    intent = new_intent_id()
    [item] = replica.rig.sign(b"message", intents=[intent], caller="shop")
    unknown = {"intent_id": new_intent_id(), "leaf_index": item.leaf_index}
    with asked_by(replica, APP) as stub:
        assert receipt(stub, intent_id=intent, caller="shop").receipt
        words = refusal(stub, **unknown, caller="proxy").detail
        told = refusal(stub, intent_id=intent, leaf_index=item.leaf_index, caller="proxy")
        assert (told.reason, told.detail) == (reasons.REASON_NOT_IN_LOG, words)
        replica.rig.store.find = lambda *_: {}
        assert receipt(stub, intent_id=intent, leaf_index=item.leaf_index, caller="shop").receipt
        told = refusal(stub, intent_id=intent, leaf_index=item.leaf_index, caller="proxy")
        assert (told.reason, told.detail) == (reasons.REASON_NOT_IN_LOG, words)


def test_an_entry_that_names_no_socket_is_for_none(replica, signed):
    """Whoever spoke to the adapter without an agent made it."""
    intent, _, leaf = signed
    with asked_by(replica, APP) as stub:
        refused_to = refusal(stub, intent_id=intent, leaf_index=leaf, caller="shop")
        assert refused_to.reason == reasons.REASON_NOT_IN_LOG
        assert receipt(stub, intent_id=intent).receipt


def test_batches_are_for_readers_and_come_in_bounded_answers(replica):
    with asked_by(replica, APP) as stub:
        taken = [_submit(stub, bytes([number]) * 16) for number in range(5)]
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetBatches(pb.GetBatchesRequest(end_leaf=1), timeout=10)
        assert FailureError.from_rpc(caught.value).reason == reasons.REASON_ROLE_MISSING
    with asked_by(replica, AUDITOR) as stub:
        answer = stub.GetBatches(pb.GetBatchesRequest(end_leaf=2**62), timeout=10)
    found = open_batch_file(answer.batches)
    assert [(index, hashlib.sha256(batch).digest()) for index, batch in found] == taken
    assert answer.next_leaf == 2**62
    last = taken[-1][0]
    page, after = batch_page(replica.rig.store, 0, last, 3, 1 << 20)
    assert ([index for index, _ in page], after) == ([one for one, _ in taken[:3]], taken[3][0])
    page, after = batch_page(replica.rig.store, after, last, 3, 1)
    assert ([index for index, _ in page], after) == ([taken[3][0]], last)


def test_summaries_are_for_readers_and_come_in_bounded_answers(replica):
    with asked_by(replica, APP) as stub:
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetSummaries(pb.GetSummariesRequest(), timeout=10)
        assert FailureError.from_rpc(caught.value).reason == reasons.REASON_ROLE_MISSING
    held = [b"%d" % tile for tile in range(300)]
    held[7] = bytes(32 * 1024 + 1)
    replica.rig.store.save_summaries(0, held)
    found: dict[int, bytes] = {}
    pages: list[int] = []
    next_tile = 0
    with asked_by(replica, AUDITOR) as stub:
        while not pages or next_tile:
            request = pb.GetSummariesRequest(first_tile=next_tile)
            answer = stub.GetSummaries(request, timeout=10)
            found |= {one.tile: one.summary for one in answer.summaries}
            next_tile = answer.next_tile
            pages.append(len(answer.summaries))
        beyond = stub.GetSummaries(pb.GetSummariesRequest(first_tile=2**62), timeout=10)
    assert pages == [128, 128, 43]
    assert found == {tile: data for tile, data in enumerate(held) if tile != 7}
    assert (list(beyond.summaries), beyond.next_tile) == ([], 0)


def _submit(stub, boot: bytes) -> tuple[int, bytes]:
    record = pb.AuditRecord(sequence=1, time_ms=1, kind=pb.AUDIT_KIND_OPEN)
    batch = pb.AuditBatch(boot_id=boot, records=[record]).SerializeToString(deterministic=True)
    answer = stub.SubmitAudit(pb.SubmitAuditRequest(batch=batch), timeout=10)
    return answer.leaf_index, hashlib.sha256(batch).digest()
