"""A call that leaves its algorithm open: the agent makes the input that each key takes."""

from __future__ import annotations

from hashlib import sha256

import grpc
import pytest
from capsign_agent.sign import verify
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import algorithms_pb2 as alg
from capsign_wire.types.v1 import failures_pb2 as fail
from capsign_wire.types.v1 import signing_pb2
from support.agent_calls import batch, group
from support.agent_home import Home, first_handle, running
from support.fake_adapter import FakeAdapter, Grant

ES256, ML_DSA, ED25519 = (
    alg.ALGORITHM_ES256,
    alg.ALGORITHM_ML_DSA_65,
    alg.ALGORITHM_ED25519,
)
UNSPECIFIED = alg.ALGORITHM_UNSPECIFIED


def left_open(handle: str, *messages: bytes) -> agent_pb2.SignGroup:
    return group(handle, *messages, algorithm=UNSPECIFIED, open_algorithm=True)


def check(adapter: FakeAdapter, signed: signing_pb2.SignedGroup, *messages: bytes) -> list[int]:
    """The algorithms of the signatures of each item, which verify over the messages."""
    keys = {key.kid: key for key in verifiable(adapter)}
    found: list[int] = []
    for item, message in zip(signed.items, messages, strict=True):
        assert item.signatures, item.failure
        found = []
        for one in item.signatures:
            by = signed.signed_by[one.key]
            assert verify.verifies(
                by.algorithm, keys[by.kid].spki, verify.Signed(message, None, one.value)
            )
            found.append(by.algorithm)
    return found


def verifiable(adapter: FakeAdapter) -> list[signing_pb2.PublicKey]:
    return [
        key
        for (algorithm, context) in list(adapter.keys_by_context)
        for key in adapter.told(algorithm, context)
    ]


@pytest.mark.parametrize("algorithms", [[ES256], [ED25519], [ES256, ML_DSA], [ML_DSA, ED25519]])
async def test_each_key_gets_the_input_that_it_takes(
    algorithms: list[int], place: Home, adapter: FakeAdapter
) -> None:
    adapter.open = algorithms
    messages = [b"m%d" % number for number in range(70)]
    async with running(place):
        stub = place.stub()
        handle = await first_handle(stub)
        [signed] = await batch(stub, left_open(handle.id, *messages))
    assert check(adapter, signed, *messages) == algorithms
    sent = [item for request in adapter.requests for each in request.groups for item in each.items]
    assert [item.message_sha256 for item in sent] == [sha256(one).digest() for one in messages]
    if ED25519 not in algorithms:
        assert not any(one in (item.input, item.second_input) for item in sent for one in messages)


async def test_what_signs_is_learnt_anew_when_it_has_changed(
    place: Home, adapter: FakeAdapter
) -> None:
    """The adapter refuses inputs for keys that do not sign any more; the call hears nothing."""
    async with running(place):
        stub = place.stub()
        handle = await first_handle(stub)
        for algorithms in ([ES256], [ES256, ML_DSA], [ML_DSA], [ES256]):
            adapter.open = algorithms
            [signed] = await batch(stub, left_open(handle.id, b"a", b"b"))
            assert check(adapter, signed, b"a", b"b") == algorithms


async def test_an_algorithm_that_was_stripped_is_refused(place: Home, adapter: FakeAdapter) -> None:
    """I10: a call that lost its algorithm on the way is none that leaves it open."""
    async with running(place):
        stub = place.stub()
        handle = await first_handle(stub)
        stripped = group(handle.id, b"a", algorithm=UNSPECIFIED)
        both = group(handle.id, b"a", open_algorithm=True)
        digest = left_open(handle.id)
        digest.items.add(intent_id=new_intent_id(), digest=bytes(32))
        for signed in await batch(stub, stripped, both, digest):
            error = FailureError.from_item(signed.items[0].failure)
            assert error.reason == fail.REASON_INPUT_MALFORMED
    assert not adapter.requests


async def test_an_older_application_gets_what_it_names_while_others_move(
    place: Home, adapter: FakeAdapter
) -> None:
    """I10: it knows of no open algorithm; without one it is refused as ever."""
    adapter.open = [ML_DSA, ES256]
    async with running(place):
        stub = place.stub()
        handle = await first_handle(stub)
        [item] = group(handle.id, b"a").items
        older = agent_pb2.SignRequest(handle_id=handle.id, algorithm=ES256, item=item)
        signed = (await stub.Sign(older)).signed
        assert check(adapter, signed, b"a") == [ES256]
        older.algorithm, older.item.intent_id = UNSPECIFIED, new_intent_id()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Sign(older)
    failure = FailureError.from_rpc(caught.value)
    assert failure is not None
    assert failure.reason == fail.REASON_INPUT_MALFORMED


async def test_a_signature_by_an_algorithm_that_the_handle_lacks_is_not_passed_on(
    place: Home, adapter: FakeAdapter
) -> None:
    """I10: open means one of the handle's, whatever the adapter answers."""
    adapter.grants = {"tokens": Grant(algorithms=(ED25519,))}
    async with running(place):
        stub = place.stub()
        handle = await first_handle(stub)
        [signed] = await batch(stub, left_open(handle.id, b"a"))
    assert signed.items[0].failure.reason == fail.REASON_INTERNAL
