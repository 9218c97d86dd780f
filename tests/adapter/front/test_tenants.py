"""TenantService over real TLS: who may ask about a message, what is told, what is recorded."""

from __future__ import annotations

import base64
import hashlib
import json
from contextlib import contextmanager

import grpc
import pytest
from capsign_adapter.front.tenant_servicer import BURST
from capsign_agent.sign.hashing import mu_hasher
from capsign_cli.audit import commitments as asking
from capsign_cli.audit.prove import looked_for
from capsign_evidence.archive import open_archive
from capsign_evidence.leaf_kinds import Act
from capsign_evidence.leaf_reader import Admin, Signed, SignedTwice, decode
from capsign_wire.adapter.v1 import tenants_pb2 as pb
from capsign_wire.adapter.v1 import tenants_pb2_grpc
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2 as algorithms
from capsign_wire.types.v1 import failures_pb2 as reasons
from capsign_wire.types.v1 import signing_pb2
from support.adapter_rig import APP, APPROVER, AUDITOR, OPERATOR, POLICY, RESPONDER

MESSAGE = b"pay 10 to mallory"
TRANSCRIPT = hashlib.sha256(b"handshake").digest()


@contextmanager
def service(replica, who: str = RESPONDER):
    with replica.as_(who) as channel:
        stub = tenants_pb2_grpc.TenantServiceStub(channel)

        def asked(message: bytes = MESSAGE, tenant: str = "demo", **more):
            digests = {"sha256": hashlib.sha256(message).digest()}
            digests["sha384"] = hashlib.sha384(message).digest()
            request = pb.GetCommitmentsRequest(tenant=tenant, **digests, **more)
            try:
                return stub.GetCommitments(request, timeout=10)
            except grpc.RpcError as error:
                failure = FailureError.from_rpc(error)
                if failure is None:
                    raise
                raise failure from None

        yield asked


def refusal(asked, *arguments, **fields) -> int:
    with pytest.raises(FailureError) as caught:
        asked(*arguments, **fields)
    return caught.value.reason


def committed(replica) -> list[bytes]:
    """The commitments of all signatures in the log."""
    found = (decode(entry) for entry in replica.rig.entries())
    return [one.commitment for one in found if isinstance(one, Signed | SignedTwice)]


def test_a_message_that_was_signed_is_found_by_its_commitment(replica):
    rig = replica.rig
    rig.sign(MESSAGE)
    rig.sign(hashlib.sha256(MESSAGE).digest(), algorithm=algorithms.ALGORITHM_ES256)
    rig.sign(
        hashlib.sha384(MESSAGE).digest(),
        handle=rig.handle("release"),
        algorithm=algorithms.ALGORITHM_ES384,
        context=signing_pb2.ContextSuffix(),
    )
    with service(replica) as asked:
        told = {one.commitment: one for one in asked().commitments}
        other = {one.commitment for one in asked(b"pay 11 to mallory").commitments}
    signed = committed(replica)
    assert [(told[one].grant, told[one].algorithm, told[one].role) for one in signed] == [
        ("orders-jwt", "Ed25519", "issuer"),
        ("orders-jwt", "ES256", "issuer"),
        ("release", "ES384", "signer"),
    ]
    assert not other & set(signed)


def test_a_transcript_and_mu_are_found_where_they_are_named(replica):
    context = signing_pb2.ContextSuffix(role="issuer", transcript=TRANSCRIPT)
    mu = hashlib.shake_256(b"a key's mu").digest(64)
    replica.rig.sign(MESSAGE, context=context)
    replica.rig.sign(mu, algorithm=algorithms.ALGORITHM_ML_DSA_65)
    with service(replica) as asked:
        without = asked()
        told = asked(transcripts=[TRANSCRIPT], mus=[mu])
    known = {one.commitment for one in told.commitments}
    assert set(committed(replica)) <= known
    assert not set(committed(replica)) & {one.commitment for one in without.commitments}
    assert (list(without.incomplete), list(told.incomplete)) == (["orders-jwt"], [])


def test_an_older_policy_tells_of_grants_that_are_gone(replica):
    rig = replica.rig
    rig.sign(MESSAGE, handle=rig.handle("thrice"))
    signed = committed(replica)
    rig.apply(POLICY.replace("name: thrice", "name: four-times"))
    replica.replica.state.epochs.look()
    with service(replica) as asked:
        assert refusal(asked, grant="thrice") == reasons.REASON_NOT_FOUND
        told = asked(grant="thrice", policy_version=1)
        assert refusal(asked, policy_version=7) == reasons.REASON_NOT_FOUND
    assert set(signed) <= {one.commitment for one in told.commitments}


def test_each_question_is_an_entry_of_the_log_that_says_nothing_of_the_message(replica):
    with service(replica) as asked:
        index = asked().leaf_index
    entry = replica.rig.entries()[index]
    found = decode(entry)
    assert isinstance(found, Admin)
    assert (found.act, found.actor, found.target) == (Act.COMMITMENTS_TOLD, RESPONDER, "demo")
    assert hashlib.sha256(MESSAGE).digest() not in entry


@pytest.mark.parametrize("who", [APP, OPERATOR, AUDITOR, APPROVER])
def test_only_responders_are_told(replica, who):
    before = len(replica.rig.entries())
    with service(replica, who) as asked:
        assert refusal(asked) == reasons.REASON_ROLE_MISSING
    assert len(replica.rig.entries()) == before


def test_a_responder_cannot_try_messages_without_end(replica):
    with service(replica) as asked:
        assert refusal(asked, tenant="nobody") == reasons.REASON_NOT_FOUND
        found = [refusal(asked, tenant="nobody") for _ in range(BURST + 5)]
    assert reasons.REASON_RATE_LIMITED in found


def test_the_command_line_finds_the_entries_in_the_store(replica, tmp_path):
    path = tmp_path / "message"
    path.write_bytes(MESSAGE)
    replica.rig.sign(b"another", MESSAGE)
    asked = asking.Asked(path, "demo", "", (), (), 0)
    with replica.as_(RESPONDER) as channel:
        told = asking.commitments_of(channel, asked)
    with open_archive(tmp_path / "store" / "store.db") as archive:
        (found,) = looked_for(archive, told).entries
    assert (found["what"], found["workload"], found["context"]) == ("signed", APP, "jwt/issuer/1")
    json.dumps(found)


def test_mu_is_that_which_agents_send_upstream(tmp_path):
    public = bytes(range(256))[:244] * 8
    path, message = tmp_path / "keys.json", tmp_path / "message"
    text = base64.urlsafe_b64encode(public).decode().rstrip("=")
    path.write_text(json.dumps({"keys": [{"kty": "AKP", "pub": text}, {"kty": "OKP"}]}))
    message.write_bytes(MESSAGE)
    request = asking.request_of(asking.Asked(message, "demo", "", (), (path,), 0))
    spki = bytes.fromhex("308207b2300b0609608648016503040312038207a100") + public
    assert list(request.mus) == [mu_hasher(spki)(MESSAGE)]
