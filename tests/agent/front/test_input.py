"""Bad input at the application's socket: each gets a typed error, nothing goes upstream, and the
agent serves on.
"""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import algorithms_pb2 as alg
from capsign_wire.types.v1 import failures_pb2 as fail
from support.agent_home import Home, first_handle, running
from support.fake_adapter import FakeAdapter

pytestmark = pytest.mark.usefixtures("engine")

SERVICE = "/capsign.agent.v1.SigningService"


def raw(stub_channel: grpc.aio.Channel, method: str, data: bytes, **more: Any) -> Any:
    """A call whose request is these bytes, whatever they are."""
    call = stub_channel.unary_unary(
        f"{SERVICE}/{method}", request_serializer=bytes, response_deserializer=bytes
    )
    return call(data, **more)


async def failure(call: Any) -> tuple[grpc.StatusCode, FailureError | None]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), FailureError.from_rpc(caught.value)


def sign_request(**changes: Any) -> agent_pb2.SignRequest:
    fields: dict[str, Any] = {
        "handle_id": "h",
        "algorithm": alg.ALGORITHM_ED25519,
        "item": agent_pb2.SignItem(intent_id=new_intent_id(), message=b"m"),
    }
    return agent_pb2.SignRequest(**{**fields, **changes})


def item(**fields: Any) -> agent_pb2.SignItem:
    return agent_pb2.SignItem(**{"intent_id": new_intent_id(), "message": b"m", **fields})


@pytest.fixture
async def channel(place: Home, adapter: FakeAdapter) -> Any:
    async with running(place), grpc.aio.insecure_channel(f"unix:{place.socket}") as one:
        yield one
        stub = place.stub()
        signed = await stub.Sign(sign_request(handle_id=(await first_handle(stub)).id))
        assert signed.signed.items
    assert len(adapter.requests) == 1


VALID = sign_request().SerializeToString()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(VALID[:-1], id="truncated"),
        pytest.param(b"\x0a\xff\xff\xff\xff\x0f", id="length beyond the end"),
        pytest.param(b"\x0b" * 40, id="groups that never end"),
        pytest.param(b"\x0a\x02\xff\xfe", id="not UTF-8"),
        pytest.param(b"\xff" * 100, id="no protobuf"),
    ],
)
async def test_bytes_that_do_not_parse(channel: Any, data: bytes) -> None:
    code, _ = await failure(raw(channel, "Sign", data))
    assert code in {grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT}


@pytest.mark.parametrize(
    ("data", "field"),
    [
        pytest.param(b"", "handle_id", id="empty"),
        pytest.param(b"\x08\x01" + VALID, "", id="wrong wire type"),
        pytest.param(
            sign_request(handle_id="a\x00b").SerializeToString(),
            "handle_id",
            id="control character",
        ),
        pytest.param(sign_request(handle_id="ä").SerializeToString(), "handle_id", id="not ASCII"),
        pytest.param(sign_request(algorithm=0).SerializeToString(), "algorithm", id="no algorithm"),
        pytest.param(
            sign_request(algorithm=99).SerializeToString(), "algorithm", id="unknown enum"
        ),
        pytest.param(sign_request(item=None).SerializeToString(), "item", id="no item"),
        pytest.param(
            sign_request(item=item(intent_id=b"")).SerializeToString(),
            "item.intent_id",
            id="no intent",
        ),
        pytest.param(
            sign_request(item=item(intent_id=bytes(17))).SerializeToString(),
            "item.intent_id",
            id="long intent",
        ),
        pytest.param(sign_request(purpose="P!").SerializeToString(), "purpose", id="purpose"),
        pytest.param(
            sign_request(item=item(message=bytes(65537))).SerializeToString(),
            "item.message",
            id="large message",
        ),
    ],
)
async def test_a_field_beyond_its_bound_is_named(channel: Any, data: bytes, field: str) -> None:
    code, told = await failure(raw(channel, "Sign", data))
    assert told is not None
    if field:
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert told.field == field
    else:
        assert told.reason == fail.REASON_HANDLE_UNKNOWN


@pytest.mark.parametrize(
    ("bad", "algorithm"),
    [
        (agent_pb2.SignItem(intent_id=new_intent_id()), alg.ALGORITHM_ES256),
        (item(intent_id=bytes(16)), alg.ALGORITHM_ES256),
        (agent_pb2.SignItem(intent_id=new_intent_id(), digest=bytes(31)), alg.ALGORITHM_ES256),
        (agent_pb2.SignItem(intent_id=new_intent_id(), digest=bytes(32)), alg.ALGORITHM_ED25519),
        (agent_pb2.SignItem(intent_id=new_intent_id(), digest=bytes(32)), alg.ALGORITHM_HS256),
        (agent_pb2.SignItem(intent_id=new_intent_id(), digest=bytes(32)), alg.ALGORITHM_ML_DSA_65),
    ],
)
async def test_an_item_that_cannot_be_signed_fails_alone(
    place: Home, channel: Any, bad: agent_pb2.SignItem, algorithm: int
) -> None:
    stub = place.stub()
    group = agent_pb2.SignGroup(
        handle_id=(await first_handle(stub)).id, algorithm=algorithm, items=[bad]
    )
    answer = await stub.SignBatch(agent_pb2.SignBatchRequest(groups=[group]))
    assert answer.groups[0].items[0].failure.reason == fail.REASON_INPUT_MALFORMED


async def test_more_items_than_a_batch_takes(place: Home, channel: Any) -> None:
    items = [item() for _ in range(1024)]
    two = [
        agent_pb2.SignGroup(handle_id="h", algorithm=alg.ALGORITHM_ED25519, items=items[:600])
        for _ in range(2)
    ]
    code, told = await failure(place.stub().SignBatch(agent_pb2.SignBatchRequest(groups=two)))
    assert (code, told and told.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        fail.REASON_INPUT_TOO_LARGE,
    )
    one = agent_pb2.SignGroup(
        handle_id="h", algorithm=alg.ALGORITHM_ED25519, items=[*items, item()]
    )
    code, told = await failure(place.stub().SignBatch(agent_pb2.SignBatchRequest(groups=[one])))
    assert told is not None
    assert (told.reason, told.field) == (fail.REASON_INPUT_TOO_LARGE, "groups[0].items")


async def test_a_batch_of_a_million_items_is_refused_by_its_size(place: Home, channel: Any) -> None:
    one = agent_pb2.SignBatchRequest(
        groups=[
            agent_pb2.SignGroup(
                handle_id="h", algorithm=alg.ALGORITHM_ED25519, items=[item(message=b"")]
            )
        ]
    ).SerializeToString()
    body = b"\x2a\x12\x0a\x10" + new_intent_id()
    group = b"\x0a\x01h\x18\x01" + body * 1_000_000
    assert len(one) < len(group)
    size = bytearray()
    rest = len(group)
    while rest:
        size.append((rest & 0x7F) | (0x80 if rest > 0x7F else 0))
        rest >>= 7
    code, _ = await failure(raw(channel, "SignBatch", b"\x0a" + bytes(size) + group))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_compressed_messages_are_not_taken(place: Home, channel: Any) -> None:
    data = sign_request(item=item(message=bytes(65536))).SerializeToString()
    code, _ = await failure(raw(channel, "Sign", data, compression=grpc.Compression.Gzip))
    assert code in {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL}


async def test_a_stream_answers_a_bad_call_and_goes_on(place: Home, channel: Any) -> None:
    stub = place.stub()
    handle = (await first_handle(stub)).id
    call = stub.SignStream()
    good = agent_pb2.SignGroup(
        handle_id=handle,
        algorithm=alg.ALGORITHM_ED25519,
        items=[agent_pb2.SignItem(intent_id=bytes(16))],
    )
    await call.write(agent_pb2.SignStreamRequest(call_id=1))
    assert (await call.read()).failure.reason == fail.REASON_INPUT_MALFORMED
    await call.write(agent_pb2.SignStreamRequest(call_id=2, groups=[good], timeout_ms=60001))
    assert (await call.read()).failure.field == "timeout_ms"
    await call.write(agent_pb2.SignStreamRequest(call_id=3, groups=[good]))
    assert (await call.read()).groups[0].items[0].failure.reason == fail.REASON_INPUT_MALFORMED
    await call.done_writing()
    assert await call.read() == grpc.aio.EOF


async def test_the_largest_messages_travel_in_pieces_that_fit(
    place: Home, adapter: FakeAdapter
) -> None:
    async with running(place):
        stub = place.stub()
        items = [item(message=bytes(65000)) for _ in range(64)]
        group = agent_pb2.SignGroup(
            handle_id=(await first_handle(stub)).id, algorithm=alg.ALGORITHM_ED25519, items=items
        )
        answer = await stub.SignBatch(agent_pb2.SignBatchRequest(groups=[group]))
    assert all(signed.signatures for signed in answer.groups[0].items)
    assert answer.groups[0].signed_by[0].kid
    assert len(adapter.requests) == 22
