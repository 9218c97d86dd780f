"""An adapter with few file descriptors: strangers who take all connections leave it those that it needs itself."""

from __future__ import annotations

import os
import resource
import socket
from contextlib import ExitStack

import capsign
import grpc
import pytest
from capsign_wire.adapter.v1 import admin_pb2, admin_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.dev import Dev
from support.direct_adapter import DirectAdapter
from support.hostile import deployment, told_by

LIMIT = 1024


@pytest.fixture(scope="module")
def dev():
    with deployment() as one:
        one.end(one.adapter())
        process = one.start_adapter(under=("prlimit", f"--nofile={LIMIT}:{LIMIT}"))
        one.wait_serving(one.about["adapters"][0]["health"])
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (LIMIT, LIMIT)
        yield one


@pytest.mark.parametrize("where", ["address", "admin", "health"])
def test_more_connections_than_there_are_descriptors(dev: Dev, where: str):
    host, port = dev.about["adapters"][0][where].split(":")
    others = {"address", "admin", "health"} - {where}
    with ExitStack() as stack:
        for _ in range(2 * LIMIT):
            try:
                stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
            except ConnectionError:
                continue  # hung up on before it was looked at
        if "health" in others:
            with grpc.insecure_channel(dev.about["adapters"][0]["health"], [("grpc.use_local_subchannel_pool", 1)]) as channel:
                answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        if "admin" in others:
            with DirectAdapter(dev.about, client="responder", where="admin") as people:
                kind = admin_pb2.REVOCATION_KIND_HANDLE
                request = admin_pb2.RevokeRequest(kind=kind, target=os.urandom(16).hex())
                assert admin_pb2_grpc.AdminServiceStub(people.channel).Revoke(request, timeout=20).revocation_epoch
        with capsign.Signer(dev.socket(), timeout=20) as signer:
            assert signer.sign(b"beside", purpose="jwt", algorithm="ES256", protocol="jwt").value
    assert b"ticker.failed" not in told_by(dev)
