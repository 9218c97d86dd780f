"""What the calls of a socket may hold."""

from __future__ import annotations

import asyncio
import gc
import os
import struct
from types import FrameType
from typing import Any

import grpc
import pytest
from capsign_agent.front.bounded_rpcs import BoundedRegistrar, RefusedRpcs
from capsign_agent.front.memory_budget import (
    CALL_BYTES,
    HEAVY_BYTES,
    RPC_BYTES,
    LargeCallSlot,
    MemoryBudget,
    weight,
)
from capsign_agent.front.read_slots import Reader, ReadSlots
from capsign_wire import bounds
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.bounds import Unparsed
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.telemetry import Metrics
from capsign_wire.types.v1 import algorithms_pb2 as alg
from capsign_wire.types.v1 import failures_pb2 as fail
from capsign_wire.types.v1 import signing_pb2 as types
from support.agent_home import Home, first_handle, running, until
from support.fake_adapter import FakeAdapter

ITEMS = 100


def group(algorithm: int, transcript: bytes = b"") -> agent_pb2.SignGroup:
    items = [agent_pb2.SignItem(intent_id=bytes(16), message=b"m") for _ in range(ITEMS)]
    context = types.ContextSuffix(transcript=transcript)
    return agent_pb2.SignGroup(
        handle_id="h" * 22, algorithm=algorithm, context=context, items=items
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("transcript", [b"", bytes(32)])
def test_an_answer_weighs_no_more_than_was_taken_for_it(algorithm: int, transcript: bytes) -> None:
    """Signatures of the greatest length; with a transcript an attestation for each, as stored
    answers have them.
    """
    request = agent_pb2.SignStreamRequest(groups=[group(algorithm, transcript)])
    answer = agent_pb2.SignStreamResponse(call_id=1)
    signed = answer.groups.add()
    for _ in range(ITEMS):
        one = signed.items.add(leaf_index=2**40).signatures.add()
        one.value = bytes(ALGORITHMS[algorithm].max_signature)
        if transcript:
            one.key = len(signed.signed_by)
            signed.signed_by.add(kid="k" * 43, policy_digest=bytes(32), attestation=bytes(3900))
    assert request.ByteSize() + answer.ByteSize() < weight(request)
    assert (
        weight(agent_pb2.SignBatchRequest(groups=[group(algorithm, transcript)]))
        < weight(request) + 16
    )


def test_what_is_no_call_has_a_weight_too() -> None:
    odd = agent_pb2.SignBatchRequest(groups=[group(0)])
    odd.groups[0].algorithm = 99
    assert weight(odd) > CALL_BYTES
    assert weight(Unparsed(fail.Failure(reason=fail.REASON_INPUT_MALFORMED))) == CALL_BYTES
    assert weight(agent_pb2.ListHandlesRequest()) == CALL_BYTES
    one = agent_pb2.SignRequest(algorithm=alg.ALGORITHM_ML_DSA_65)
    assert weight(one) > CALL_BYTES + 3309


def test_more_than_fits_is_refused_and_counted() -> None:
    metrics = Metrics()
    room = MemoryBudget(2 * CALL_BYTES, metrics)
    small = agent_pb2.ListHandlesRequest()
    taken = room.acquire(weight(small)) + room.acquire(weight(small))
    with pytest.raises(FailureError, match="OVERLOADED"):
        room.acquire(weight(small))
    assert {labels: n for labels, n in metrics.snapshot()["capsign.calls"].items() if n} == {
        ("unavailable", "OVERLOADED"): 1
    }
    assert room.held == taken
    room.release(weight(small))
    assert room.acquire(weight(small)) == CALL_BYTES


def test_one_heavy_call_has_a_place_that_all_sockets_share() -> None:
    """Beside it the socket's other calls go on."""
    heavy = LargeCallSlot()
    room, other = (MemoryBudget(4 * CALL_BYTES, Metrics(), heavy) for _ in range(2))
    for _ in range(4):
        room.acquire(CALL_BYTES)
    room.acquire(HEAVY_BYTES)
    with pytest.raises(FailureError, match="OVERLOADED"):
        other.acquire(HEAVY_BYTES)
    other.acquire(CALL_BYTES)
    with pytest.raises(FailureError, match="OVERLOADED"):
        room.acquire(CALL_BYTES)
    room.release(CALL_BYTES)
    room.acquire(CALL_BYTES)
    room.release(HEAVY_BYTES)
    other.acquire(HEAVY_BYTES)
    other.release(
        HEAVY_BYTES + CALL_BYTES
    )  # a stream that ends gives back all of its calls at once
    room.acquire(HEAVY_BYTES)
    with pytest.raises(FailureError, match="OVERLOADED"):
        other.acquire(HEAVY_BYTES + 1)


def test_the_heaviest_call_fits_beside_others_however_small_the_room() -> None:
    """Were it heavier than the room, it would only ever be taken while the socket does nothing
    else, not even hold a stream.
    """
    item = agent_pb2.SignItem(intent_id=bytes(16), message=bytes(4000))
    items = [item] * bounds.MAX_BATCH_ITEMS
    context = types.ContextSuffix(transcript=bytes(32))
    for algorithm in ALGORITHMS:
        asked = agent_pb2.SignGroup(
            handle_id="h" * 22, algorithm=algorithm, context=context, items=items
        )
        heaviest = agent_pb2.SignStreamRequest(groups=[asked])
        assert bounds.MAX_MESSAGE_BYTES * 0.95 < heaviest.ByteSize() <= bounds.MAX_MESSAGE_BYTES
        room = MemoryBudget(12_582_912 // 16, Metrics())
        for _ in range(3):
            room.acquire(RPC_BYTES)
        room.acquire(weight(heaviest))


# Over a real socket.

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes([kind, flags])
        + struct.pack(">I", stream)
        + payload
    )


def literal(name: bytes, value: bytes) -> bytes:
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


async def test_an_answer_that_is_not_read_keeps_its_room_until_the_application_has_gone(
    place: Home, adapter: FakeAdapter
) -> None:
    """Its window is zero: gRPC cannot send the answer and keeps it, with no end to how many of them
    there are.
    """
    async with running(place) as agent:
        [memory] = agent.servers.memory
        await first_handle(place.stub())
        answer = await place.stub().ListHandles(agent_pb2.ListHandlesRequest())
        await until(lambda: memory.held == 0)
        reader, writer = await asyncio.open_unix_connection(str(place.socket))
        headers = (
            b"\x83\x86"
            + literal(b":path", b"/capsign.agent.v1.SigningService/ListHandles")
            + literal(b":authority", b"x")
        )
        headers += literal(b"content-type", b"application/grpc") + literal(b"te", b"trailers")
        writer.write(
            PREFACE
            + frame(4, 0, 0, struct.pack(">HI", 4, 0))
            + frame(1, 4, 1, headers)
            + frame(0, 1, 1, bytes(5))
        )
        while b"content-type" not in (await reader.read(4096)) and not memory.held:
            pass
        await until(lambda: memory.held == RPC_BYTES + CALL_BYTES + answer.ByteSize())
        writer.close()
        await until(lambda: memory.held == 0)


async def test_an_answer_that_is_not_read_for_long_ends_its_call() -> None:
    """Who keeps the connection and takes nothing would keep the room for as long as it likes."""
    registered: dict[str, Any] = {}

    class Server:
        def add_generic_rpc_handlers(self, _: Any) -> None:
            pass

        def add_registered_method_handlers(self, _: str, handlers: dict[str, Any]) -> None:
            registered.update(handlers)

    class Call:
        async def read(self) -> str:
            return "message"

    async def answering(message: str, _: Any) -> str:
        return f"answer to {message}"

    memory = MemoryBudget(2 * RPC_BYTES, Metrics())
    registrar = BoundedRegistrar(
        Server(), memory, ReadSlots(1, 1), RefusedRpcs(), "app", unread_s=0.01
    )
    method: Any = grpc.unary_unary_rpc_method_handler(answering)
    registrar.add_registered_method_handlers("s", {"Ask": method})

    async def as_grpc_does() -> None:
        assert await registered["Ask"].stream_unary(None, Call()) == "answer to message"
        assert memory.held == RPC_BYTES
        await asyncio.Future()  # the answer never gets away

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(as_grpc_does())
    await until(lambda: memory.held == 0)


@pytest.mark.usefixtures("engine")
async def test_an_answer_with_keys_is_weighed_too(place: Home, adapter: FakeAdapter) -> None:
    """Sixty-four versions, each with its attestation, weighed as much as none: what was not read
    had no bound in bytes.
    """
    context = types.ContextSuffix(transcript=bytes(32))
    async with running(place) as agent:
        stub = place.stub()
        handle = await first_handle(stub)
        [memory] = agent.servers.memory
        asked = agent_pb2.GetPublicKeysRequest(
            handle_id=handle.id, algorithm=alg.ALGORITHM_ES256, context=context
        )
        size = (await stub.GetPublicKeys(asked)).ByteSize()
        assert size > 0
        await until(lambda: memory.held == 0)
        left = RPC_BYTES + weight(asked) + size
        taken = memory.acquire(place.config().limits.call_bytes - left)
        await stub.GetPublicKeys(asked)
        await until(lambda: memory.held == taken)
        taken += memory.acquire(1)
        with pytest.raises(grpc.aio.AioRpcError, match="RESOURCE_EXHAUSTED"):
            await stub.GetPublicKeys(asked)
        await until(lambda: memory.held == taken)


@pytest.mark.usefixtures("engine")
async def test_streams_on_which_nothing_is_asked_are_bounded_too(
    place: Home, adapter: FakeAdapter
) -> None:
    """Four thousand of them took 100 MiB."""
    async with running(place) as agent:
        stub = place.stub()
        await first_handle(stub)
        room = agent.servers.memory[0]
        await until(lambda: room.held == 0)
        taken = room.acquire(place.config().limits.call_bytes - 3 * RPC_BYTES)
        streams = [stub.SignStream() for _ in range(4)]
        await until(lambda: any(one.done() for one in streams))
        [refused] = [one for one in streams if one.done()]
        assert await refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert room.held == taken + 3 * RPC_BYTES
        for one in streams:
            one.cancel()
        await until(lambda: room.held == taken)


async def knots(act: Any) -> list[str]:
    """The functions whose frames, and the RPCs that, are left to the garbage collector after
    this.
    """
    gc.collect()
    gc.disable()
    try:
        before = {id(one) for one in gc.get_objects()}
        await act()
        new = [one for one in gc.get_objects() if id(one) not in before]
        frames = [one for one in new if isinstance(one, FrameType)]
        left = [one.f_code.co_name for one in frames if "capsign_agent" in one.f_code.co_filename]
        return left + [type(one).__name__ for one in new if isinstance(one, Reader)]
    finally:
        gc.enable()


@pytest.mark.usefixtures("engine")
async def test_a_call_that_fails_leaves_nothing_to_the_garbage_collector(
    place: Home, adapter: FakeAdapter
) -> None:
    """Each request that was refused stayed in a knot of exception, frames and RPC until the
    collector came: 800 MiB of them.
    """
    async with running(place) as agent:
        stub = place.stub()
        await first_handle(stub)

        async def refused() -> None:
            for _ in range(5):
                with pytest.raises(grpc.aio.AioRpcError):
                    await stub.Sign(agent_pb2.SignRequest())
            await until(lambda: agent.servers.memory[0].held == 0)

        assert await knots(refused) == []


@pytest.mark.usefixtures("engine")
async def test_a_call_whose_answer_was_lost_leaves_nothing_either(
    place: Home, adapter: FakeAdapter
) -> None:
    place.upstream = "timeout_ms = 200"
    async with running(place) as agent:
        stub = place.stub()
        handle = await first_handle(stub)
        answering = asyncio.Event()
        loop = asyncio.get_running_loop()
        adapter.faults.before_answer = lambda request: asyncio.run_coroutine_threadsafe(
            answering.wait(), loop
        ).result(20)

        async def lost() -> None:
            item = agent_pb2.SignItem(intent_id=new_intent_id(), message=os.urandom(64))
            groups = [
                agent_pb2.SignGroup(
                    handle_id=handle.id, algorithm=alg.ALGORITHM_ES256, items=[item]
                )
            ]
            answer = await stub.SignBatch(agent_pb2.SignBatchRequest(groups=groups))
            assert answer.groups[0].items[0].failure.reason == fail.REASON_ANSWER_LATE
            await until(lambda: agent.servers.memory[0].held == 0)

        assert await knots(lost) == []
        answering.set()


@pytest.mark.usefixtures("engine")
async def test_a_stream_that_makes_room_for_others_leaves_nothing_either(
    place: Home, adapter: FakeAdapter
) -> None:
    async with running(place) as agent:
        stub = place.stub()
        await first_handle(stub)

        async def crowd() -> None:
            streams = [stub.SignStream() for _ in range(20)]
            await until(lambda: sum(one.done() for one in streams) >= 12)
            for one in streams:
                if one.done():
                    assert await one.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
                one.cancel()
            await until(lambda: agent.servers.memory[0].held == 0)

        assert await knots(crowd) == []
