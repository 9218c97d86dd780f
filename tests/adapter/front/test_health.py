"""What the health listener says of a replica whose surroundings fail, one by one, and mend."""

from __future__ import annotations

import datetime
import subprocess
import sys
import time
from collections.abc import Callable

import grpc
import pytest
from capsign_adapter.keys import labels
from capsign_wire.types.v1 import algorithms_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVING, NOT_SERVING = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
)
PATIENCE_S = 30


@pytest.fixture
def ask(replica):
    with grpc.insecure_channel(f"127.0.0.1:{replica.replica.health_port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        yield (
            lambda service="": (
                stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status
            )
        )


def becomes(ask: Callable[..., int], status: int) -> None:
    end = time.monotonic() + PATIENCE_S
    while ask() != status:
        assert time.monotonic() < end
        assert ask("liveness") == SERVING


def test_the_key_of_the_log_is_gone(replica, ask):
    """Somebody removed it from the token: nothing can be proven any more, and a new key would hide
    that.
    """
    becomes(ask, SERVING)
    replica.rig.token.destroy(labels.LOG)
    becomes(ask, NOT_SERVING)
    replica.rig.token.generate_key_pair(labels.LOG, algorithms_pb2.ALGORITHM_ED25519)
    becomes(ask, SERVING)


def test_a_certificate_that_ended_in_its_place(replica, ask):
    """Nobody connects meanwhile, so gRPC never looks at the files; the replica does."""
    becomes(ask, SERVING)
    short = replica.authority.issue(
        "spiffe://capsign.test/adapter", dns=("localhost",), life=datetime.timedelta(seconds=3)
    )
    short.write(replica.directory, "server")
    becomes(ask, NOT_SERVING)
    replica.authority.issue("spiffe://capsign.test/adapter", dns=("localhost",)).write(
        replica.directory, "server"
    )
    becomes(ask, SERVING)


def test_half_a_new_certificate_is_not_the_one_that_is_served(replica, ask):
    becomes(ask, SERVING)
    other = replica.authority.issue(
        "spiffe://capsign.test/adapter", dns=("localhost",), life=-datetime.timedelta(hours=1)
    )
    (replica.directory / "server.pem").write_bytes(other.certificate)
    assert [ask() for _ in range(20)] == [SERVING] * 20


def test_no_descriptor_is_left():
    """In a process of its own, whose limit is low."""
    code = """
import os, resource
from capsign_adapter.sign.health_checks import descriptor_check
said = [descriptor_check()]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
try:
    while True:
        held.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    said.append(descriptor_check())
os.close(held.pop())
print([*said, descriptor_check()])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['', 'descriptors_exhausted', '']\n"
