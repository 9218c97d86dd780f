"""JWK Sets at the application's socket: asked for once, in the contexts of the handle alone."""

from __future__ import annotations

import grpc
import pytest
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as fail
from capsign_wire.types.v1 import signing_pb2
from support.agent_home import Home, first_handle, running
from support.fake_adapter import FakeAdapter


async def test_a_set_comes_as_the_adapter_wrote_it_and_is_asked_for_once(
    place: Home, adapter: FakeAdapter
) -> None:
    asked: list[None] = []
    adapter.faults.before_keys = lambda: asked.append(None)
    context = signing_pb2.ContextSuffix(protocol="jwt", role="issuer", protocol_version="1")
    async with running(place):
        stub = place.stub()
        handle = (await first_handle(stub)).id
        request = agent_pb2.GetJwksRequest(handle_id=handle, context=context)
        told = [await stub.GetJwks(request) for _ in range(3)]
    assert {(each.key_set, each.etag, each.sequence) for each in told} == {
        (b'{"keys":[]}', '"of none"', 1)
    }
    assert all(0 < each.max_age_s <= 60 for each in told)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("handle", "role", "reason"),
    [
        ("", "nobodys", fail.REASON_CONTEXT_NOT_ALLOWED),
        ("another", "issuer", fail.REASON_HANDLE_UNKNOWN),
    ],
)
async def test_what_the_handle_does_not_allow_is_asked_of_nobody(
    place: Home, adapter: FakeAdapter, handle: str, role: str, reason: int
) -> None:
    adapter.faults.before_keys = lambda: pytest.fail("asked")
    context = signing_pb2.ContextSuffix(protocol="jwt", role=role, protocol_version="1")
    async with running(place):
        stub = place.stub()
        mine = (await first_handle(stub)).id
        request = agent_pb2.GetJwksRequest(handle_id=handle or mine, context=context)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetJwks(request)
    refused = FailureError.from_rpc(caught.value)
    assert refused is not None
    assert refused.reason == reason
