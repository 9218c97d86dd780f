"""RPCs are measured as OpenTelemetry's convention says: one duration an RPC, with the status that
its caller got.
"""

from __future__ import annotations

from concurrent import futures
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from capsign_wire.adapter.v1 import capability_pb2 as pb
from capsign_wire.adapter.v1 import capability_pb2_grpc
from capsign_wire.agent.v1 import agent_pb2, agent_pb2_grpc
from capsign_wire.failures import FailureError, RpcStatus, abort
from capsign_wire.lenient import LenientRegistrar
from capsign_wire.metric_catalogue import CATALOGUE
from capsign_wire.rpc_client_metrics import MeasuredChannel
from capsign_wire.rpc_metrics import SERVER_FAULTS, MeasuredRegistrar
from capsign_wire.telemetry import Metrics
from capsign_wire.types.v1 import failures_pb2
from support.agent_home import until

ISSUE, RENEW, WATCH = (
    f"capsign.adapter.v1.CapabilityService/{name}"
    for name in ("IssueHandles", "RenewHandles", "Watch")
)
SIGN, LIST = (f"capsign.agent.v1.SigningService/{name}" for name in ("Sign", "ListHandles"))
STREAM = "capsign.agent.v1.SigningService/SignStream"


class Capabilities(capability_pb2_grpc.CapabilityServiceServicer):
    def IssueHandles(self, request, context):
        if request.grants:
            abort(context, FailureError(failures_pb2.REASON_HANDLE_UNKNOWN))
        return pb.IssueHandlesResponse()

    def RenewHandles(self, request, context):
        raise RuntimeError("a defect")

    def Watch(self, request, context):
        while True:
            yield pb.WatchResponse()


class Signing(agent_pb2_grpc.SigningServiceServicer):
    async def ListHandles(self, request, context):
        return agent_pb2.ListHandlesResponse()

    async def Sign(self, request, context):
        await context.abort_with_status(RpcStatus(FailureError(failures_pb2.REASON_OVERLOADED)))

    async def SignStream(self, _, context):  # type: ignore[override]  # gRPC takes a coroutine, too
        while (request := await context.read()) is not grpc.aio.EOF:
            await context.write(agent_pb2.SignStreamResponse(call_id=request.call_id))


def seen(metrics, side="server"):
    return {
        labels[1:]: count
        for labels, count in metrics.snapshot()[f"rpc.{side}.call.duration"].items()
    }


@contextmanager
def capabilities():
    """A stub and the server's metrics. Once it is left every handler has ended, and is counted."""
    metrics = Metrics()
    with futures.ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        registrar = LenientRegistrar(MeasuredRegistrar(server, metrics), 1024)
        capability_pb2_grpc.add_CapabilityServiceServicer_to_server(Capabilities(), registrar)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield capability_pb2_grpc.CapabilityServiceStub(channel), metrics
        finally:
            server.stop(None).wait()


def test_a_synchronous_server():
    with capabilities() as (stub, metrics):
        stub.IssueHandles(pb.IssueHandlesRequest())
        with pytest.raises(grpc.RpcError):
            stub.IssueHandles(pb.IssueHandlesRequest(grants=["x"]))
        with pytest.raises(grpc.RpcError):
            stub.RenewHandles(pb.RenewHandlesRequest())
        watch = stub.Watch(pb.WatchRequest())
        next(watch)
        watch.cancel()
    refused = failures_pb2.REASON_HANDLE_UNKNOWN
    found = seen(metrics)
    assert found.pop((WATCH, "CANCELLED", "")) == 1
    assert found == {
        (ISSUE, "OK", ""): 1,
        (ISSUE, FailureError(refused).row.status.name, ""): 1,
        (RENEW, "UNKNOWN", "UNKNOWN"): 1,
    }


async def test_an_aio_server():
    metrics = Metrics()
    server = grpc.aio.server()
    agent_pb2_grpc.add_SigningServiceServicer_to_server(
        Signing(),  # type: ignore[abstract] # nothing else is asked
        LenientRegistrar(MeasuredRegistrar(server, metrics), 1024),
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stopping = AsyncExitStack()
    stopping.push_async_callback(server.stop, None)
    async with stopping, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = agent_pb2_grpc.SigningServiceStub(channel)
        await stub.ListHandles(agent_pb2.ListHandlesRequest())
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Sign(agent_pb2.SignRequest())
        stream = stub.SignStream()
        await stream.write(agent_pb2.SignStreamRequest(call_id=1))
        assert (await stream.read()).call_id == 1
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
    overloaded = FailureError(failures_pb2.REASON_OVERLOADED).row.status.name
    fault = overloaded if overloaded in SERVER_FAULTS else ""
    assert seen(metrics) == {
        (LIST, "OK", ""): 1,
        (SIGN, overloaded, fault): 1,
        (STREAM, "OK", ""): 1,
    }


def test_the_buckets_and_the_labels_are_those_of_the_convention():
    row = CATALOGUE["rpc.server.call.duration"]
    assert row.unit == "s"
    assert row.buckets == (
        0.005,
        0.01,
        0.025,
        0.05,
        0.075,
        0.1,
        0.25,
        0.5,
        0.75,
        1.0,
        2.5,
        5.0,
        7.5,
        10.0,
    )
    assert list(row.labels) == [
        "rpc.system.name",
        "rpc.method",
        "rpc.response.status_code",
        "error.type",
    ]
    assert {ISSUE, RENEW, WATCH, SIGN, LIST, STREAM} < row.labels["rpc.method"]


async def test_what_a_client_asked():
    server = grpc.aio.server()
    agent_pb2_grpc.add_SigningServiceServicer_to_server(
        Signing(),  # type: ignore[abstract] # nothing else is asked
        LenientRegistrar(server, 1024),
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    metrics, stopping = Metrics(), AsyncExitStack()
    stopping.push_async_callback(server.stop, None)
    async with stopping, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        measured: Any = MeasuredChannel(channel, metrics)
        stub = agent_pb2_grpc.SigningServiceStub(measured)
        await stub.ListHandles(agent_pb2.ListHandlesRequest())
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Sign(agent_pb2.SignRequest())
        stream = stub.SignStream()
        await stream.write(agent_pb2.SignStreamRequest(call_id=1))
        assert (await stream.read()).call_id == 1
        stream.cancel()
        await until(lambda: len(seen(metrics, "client")) == 3)
    overloaded = FailureError(failures_pb2.REASON_OVERLOADED).row.status.name
    assert seen(metrics, "client") == {
        (LIST, "OK", ""): 1,
        (SIGN, overloaded, overloaded): 1,
        (STREAM, "CANCELLED", "CANCELLED"): 1,
    }
