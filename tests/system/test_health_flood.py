"""Anybody may come to the listener for probes, and a check is answered however many do."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from capsign_wire.failures import FailureError
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.hostile import deployment, rss

ROOM_MIB = 32
WATCH, CHECK = "/grpc.health.v1.Health/Watch", "/grpc.health.v1.Health/Check"
OWN = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]


@pytest.fixture(scope="module")
def dev():
    with deployment() as one:
        yield one


@pytest.fixture
def where(dev) -> str:
    return dev.about["adapters"][0]["health"]


def demand_checks(where: str, times: int = 20) -> None:
    for _ in range(times):
        with grpc.insecure_channel(where, OWN) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=10
            )
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_a_check_is_answered_beside_a_flood_of_watches(dev, where):
    before = rss(dev.adapter())
    with ExitStack() as stack:
        held: list[Any] = []
        for _ in range(40):
            channel = stack.enter_context(grpc.insecure_channel(where, OWN))
            held += [channel.unary_stream(WATCH)(b"", timeout=60) for _ in range(150)]
        demand_checks(where)
        assert rss(dev.adapter()) - before < ROOM_MIB
        refused = [FailureError.from_rpc(call) for call in held if call.done()]
        assert {failure.row.name for failure in refused if failure} == {"OVERLOADED"}
        for call in held:
            call.cancel()
    demand_checks(where)


def test_a_check_is_answered_beside_calls_whose_request_never_comes(dev, where):
    over = threading.Event()

    def never():
        over.wait(60)
        yield from ()

    with ExitStack() as stack:
        channels = [stack.enter_context(grpc.insecure_channel(where, OWN)) for _ in range(4)]
        held: Any = [
            one.stream_unary(path).future(never(), timeout=60)
            for one in channels
            for path in (CHECK, WATCH)
            for _ in range(40)
        ]
        stack.callback(over.set)
        demand_checks(where)
        assert len(held) == 320


def test_a_check_is_answered_beside_connections_that_say_nothing(dev, where):
    host, port = where.split(":")
    with ExitStack() as stack:
        for _ in range(600):
            stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
        demand_checks(where)


@pytest.mark.parametrize("size", [5_000, 1 << 20])
def test_a_request_of_more_than_a_name_is_not_read(dev, where, size):
    with grpc.insecure_channel(where, OWN) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(CHECK)(b"\x0a" + bytes(size), timeout=20)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
