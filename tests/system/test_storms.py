"""Many calls at once from honest clients that are not ours: none of them may see an error of the
transport.
"""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from capsign_wire.agent.v1 import agent_pb2 as pb
from capsign_wire.agent.v1 import agent_pb2_grpc
from capsign_wire.types.v1 import algorithms_pb2 as algorithms
from capsign_wire.types.v1 import signing_pb2 as types
from support import go_storm
from support.hostile import deployment, forget_peak, peak, rss


@pytest.fixture(scope="module")
def dev():
    with deployment() as one:
        yield one


@pytest.fixture(scope="module")
def storm(tmp_path_factory) -> Path:
    return go_storm.build(tmp_path_factory.mktemp("go"))


@pytest.fixture(scope="module")
def head(dev) -> bytes:
    with grpc.insecure_channel(f"unix:{dev.socket()}") as channel:
        listed = agent_pb2_grpc.SigningServiceStub(channel).ListHandles(
            pb.ListHandlesRequest(), timeout=20, wait_for_ready=True
        )
    [handle] = [one for one in listed.handles if one.purpose == "jwt"]
    asked = pb.SignRequest(
        handle_id=handle.id,
        algorithm=algorithms.ALGORITHM_ES256,
        context=types.ContextSuffix(protocol="jwt"),
    )
    return asked.SerializeToString()


@pytest.mark.parametrize(
    ("concurrent", "message_bytes"),
    [(64, 32), (256, 32), (1000, 32), (2000, 32), (4000, 32), (256, 60_000)],
)
def test_concurrent_calls_of_a_go_client_on_one_connection_are_all_signed(
    dev, storm, head, concurrent, message_bytes
):
    """gRPC counted streams that were not quite gone, and refused from 5 to 80 % of the calls:
    `Unavailable … REFUSED_STREAM`.
    """
    before, calls = rss(dev.agent), max(2_000, concurrent)
    forget_peak(dev.agent)
    heard = go_storm.heard(
        go_storm.start(storm, dev.socket(), concurrent, calls, message_bytes, head)
    )
    assert heard == {"SIGNED": calls}
    assert peak(dev.agent) - before < 64


def test_calls_that_nobody_has_looked_at_yet_wait_and_are_not_cancelled(dev, storm, head):
    """From 1,000 such calls of a socket on, over all of its connections, gRPC cancelled some by
    chance, and all from 3,000 on: bare `Canceled`.
    """
    storms = [go_storm.start(storm, dev.socket(), 100, 300, 32, head) for _ in range(25)]
    outcomes = {outcome for one in storms for outcome in go_storm.heard(one)}
    assert "SIGNED" in outcomes
    assert outcomes <= {"SIGNED", "OVERLOADED"}


def test_more_connections_than_the_room_holds_hear_that_in_our_words(dev, storm, head):
    """Ten Go processes with a thousand calls each: what has no room is OVERLOADED, and everything
    else is signed.
    """
    before = rss(dev.agent)
    forget_peak(dev.agent)
    storms = [go_storm.start(storm, dev.socket(), 1_000, 1_000, 16_000, head) for _ in range(10)]
    outcomes = [go_storm.heard(one) for one in storms]
    assert {outcome for heard in outcomes for outcome in heard} <= {"SIGNED", "OVERLOADED"}
    assert any("SIGNED" in heard for heard in outcomes)
    assert peak(dev.agent) - before < 96
