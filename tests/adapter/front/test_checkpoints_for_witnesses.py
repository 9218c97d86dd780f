"""What an agent is shown as a witness of the log: a checkpoint that is recent enough, and the proof
that it extends what the agent has seen; over real mTLS.
"""

from __future__ import annotations

import pytest
from capsign_evidence.checkpoint import TreeHead, open_checkpoint
from capsign_evidence.note import VerifierKey
from capsign_evidence.proofs import verify_consistency
from capsign_wire.adapter.v1 import evidence_pb2 as pb
from capsign_wire.adapter.v1 import evidence_pb2_grpc
from support.adapter_rig import APP

HOUR_MS = 3_600_000


@pytest.fixture
def stub(replica):
    with replica.as_(APP) as channel:
        yield evidence_pb2_grpc.EvidenceServiceStub(channel)


def shown(stub, **asked) -> tuple[TreeHead, list[bytes]]:
    answer = stub.GetCheckpoint(pb.GetCheckpointRequest(**asked), timeout=10)
    key = VerifierKey.parse(answer.verifier_key)
    return open_checkpoint(answer.checkpoint, key), list(answer.consistency)


def test_the_proof_comes_with_the_checkpoint(replica, stub):
    replica.rig.sign(b"message")
    seen, proof = shown(stub)
    assert proof == []
    for _ in range(3):
        replica.rig.sign(b"message")
    now, proof = shown(stub, consistent_with=seen.size)
    assert now.size == seen.size + 3
    verify_consistency(seen.size, seen.root, now.size, now.root, proof)
    again, proof = shown(stub, consistent_with=now.size)
    assert (again, proof) == (now, [])


def test_a_checkpoint_that_is_recent_enough_is_not_signed_anew(replica, stub):
    """A thousand agents that ask each minute would be a signature in the token for each of them."""
    replica.rig.sign(b"message")
    seen, _ = shown(stub)
    replica.rig.sign(b"message")
    assert shown(stub, consistent_with=seen.size, max_age_ms=HOUR_MS) == (seen, [])
    newer, _ = shown(stub, consistent_with=seen.size)
    assert newer.size == seen.size + 1
    kept, proof = shown(stub, consistent_with=seen.size, max_age_ms=HOUR_MS)
    assert kept == newer
    verify_consistency(seen.size, seen.root, newer.size, newer.root, proof)


def test_one_that_does_not_cover_what_was_seen_is_not_good_enough(replica, stub):
    """Another replica has shown a newer one: the kept one would look like a log that shrank."""
    replica.rig.sign(b"message")
    first, _ = shown(stub)
    replica.rig.sign(b"message")
    size = replica.rig.store.control().tree_size
    now, proof = shown(stub, consistent_with=size, max_age_ms=HOUR_MS)
    assert (now.size, proof) == (size, [])
    assert now.size > first.size


def test_a_log_with_fewer_leaves_than_were_seen_shows_what_it_has(replica, stub):
    """It is no error of the caller: what is shown is what convicts it."""
    replica.rig.sign(b"message")
    size = replica.rig.store.control().tree_size
    for age in (0, HOUR_MS):
        now, proof = shown(stub, consistent_with=size + 50, max_age_ms=age)
        assert (now.size, proof) == (size, [])
