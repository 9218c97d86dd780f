"""Requests that are none, and large ones: what reaches the servicer in their place."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from capsign_wire import bounds, lenient
from capsign_wire.agent.v1 import agent_pb2 as pb
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2

MOST = 2 * 1024 * 1024


class Server:
    """Takes what the registrar hands on."""

    def add_generic_rpc_handlers(self, handlers):
        pass

    def add_registered_method_handlers(self, service, handlers):
        self.parse = {name: handler.request_deserializer for name, handler in handlers.items()}


@pytest.fixture
def parse():
    server = Server()
    handler: Any = grpc.stream_stream_rpc_method_handler(
        lambda *_: None, pb.SignStreamRequest.FromString
    )
    lenient.LenientRegistrar(server, MOST).add_registered_method_handlers(
        "service", {"Sign": handler}
    )
    return server.parse["Sign"]


def call(items: int, size: int) -> pb.SignStreamRequest:
    made = [pb.SignItem(intent_id=new_intent_id(), message=bytes(size)) for _ in range(items)]
    group = pb.SignGroup(handle_id="h", algorithm=algorithms_pb2.ALGORITHM_ES256, items=made)
    return pb.SignStreamRequest(call_id=7, groups=[group])


def refusal(request) -> FailureError:
    with pytest.raises(FailureError) as caught:
        bounds.check(request)
    return caught.value


def test_a_good_request_is_itself(parse):
    for request in (call(1, 10), call(1024, 1000)):
        assert parse(request.SerializeToString()) == request


def test_bytes_that_are_no_message_are_refused_where_bounds_are_checked(parse):
    stand_in = parse(b"\xff")
    assert refusal(stand_in).reason == failures_pb2.REASON_INPUT_MALFORMED
    assert refusal(stand_in) is not refusal(stand_in)
    assert stand_in.number == 0


def test_a_large_request_that_breaks_a_bound_is_let_go_at_once_and_keeps_its_number(parse):
    request = call(1025, 100)
    assert request.ByteSize() > lenient.LARGE
    stand_in = parse(request.SerializeToString())
    assert isinstance(stand_in, bounds.Unparsed)
    assert stand_in.number == 7
    failure = refusal(stand_in)
    assert (failure.reason, failure.field) == (
        failures_pb2.REASON_INPUT_TOO_LARGE,
        "groups[0].items",
    )
    assert failure.detail == refusal(request).detail


def test_a_request_above_the_bound_is_refused_in_our_words_and_not_parsed(parse):
    """gRPC said RESOURCE_EXHAUSTED without a reason of ours, to whoever sent one byte too much."""
    request = call(1, MOST)
    failure = refusal(parse(request.SerializeToString()))
    assert failure.reason == failures_pb2.REASON_INPUT_TOO_LARGE
    assert f"{request.ByteSize()} bytes" in failure.detail
    assert str(MOST) in failure.detail


@pytest.mark.parametrize(
    ("most", "taken"), [(16_384, 32_768), (262_144, 524_288), (4_194_304, 4_456_448)]
)
def test_grpc_takes_more_than_we_do_and_not_much_more(most, taken):
    assert bounds.taken_bytes(most) == taken
