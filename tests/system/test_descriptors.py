"""An adapter with few file descriptors: strangers who take all connections leave it those that it
needs itself.
"""

from __future__ import annotations

import os
import resource
import socket
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import capsign
import grpc
import psutil
import pytest
from capsign_wire.adapter.v1 import admin_pb2, admin_pb2_grpc, evidence_pb2, evidence_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.dev import Dev
from support.direct_adapter import DirectAdapter
from support.hostile import deployment, told_by

LIMIT = 1024
READS = 300


@pytest.fixture(scope="module")
def limited():
    with deployment() as one:
        one.end(one.adapter())
        process = one.start_adapter(under=("prlimit", f"--nofile={LIMIT}:{LIMIT}"))
        one.wait_serving(one.about["adapters"][0]["health"])
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (LIMIT, LIMIT)
        yield one, psutil.Process(process.pid)


def entries(auditor: DirectAdapter) -> list[bytes]:
    """What many threads read from the store at once, each over a connection of its own to it."""
    stub = evidence_pb2_grpc.EvidenceServiceStub(auditor.channel)
    request = evidence_pb2.GetEntriesRequest(index=0, width=1)
    with ThreadPoolExecutor(8) as pool:
        return [
            one.entries
            for one in pool.map(lambda _: stub.GetEntries(request, timeout=30), range(READS))
        ]


@contextmanager
def strangers(host: str, port: int) -> Iterator[None]:
    """Twice as many connections as there may be descriptors, each replaced when it was hung up
    on.
    """
    over, there, held = threading.Event(), threading.Event(), deque[socket.socket]()

    def crowd() -> None:
        while not over.is_set():
            with suppress(OSError):
                held.append(socket.create_connection((host, port), timeout=20))
            if len(held) >= 2 * LIMIT:
                there.set()
                held.popleft().close()

    thread = threading.Thread(target=crowd)
    thread.start()
    try:
        assert there.wait(60)
        yield
    finally:
        over.set()
        thread.join()
        for one in held:
            one.close()


def demand_health(dev: Dev) -> None:
    with grpc.insecure_channel(
        dev.about["adapters"][0]["health"], [("grpc.use_local_subchannel_pool", 1)]
    ) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=20
        )
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def revoke(dev: Dev) -> None:
    request = admin_pb2.RevokeRequest(
        kind=admin_pb2.REVOCATION_KIND_HANDLE, target=os.urandom(16).hex()
    )
    with DirectAdapter(dev.about, client="responder", where="admin") as people:
        assert (
            admin_pb2_grpc.AdminServiceStub(people.channel)
            .Revoke(request, timeout=20)
            .revocation_epoch
        )


@pytest.mark.parametrize("where", ["address", "admin", "health"])
def test_more_connections_than_there_are_descriptors(
    limited: tuple[Dev, psutil.Process], where: str
):
    dev, process = limited
    host, port = dev.about["adapters"][0][where].split(":")
    others = {"address", "admin", "health"} - {where}
    with DirectAdapter(dev.about, client="auditor") as auditor:
        assert len(entries(auditor)) == READS
        with strangers(host, int(port)):
            assert process.num_fds() < LIMIT - 128
            assert len(entries(auditor)) == READS
            if "health" in others:
                demand_health(dev)
            if "admin" in others:
                revoke(dev)
            with capsign.Signer(dev.socket(), timeout=20) as signer:
                assert signer.sign(
                    b"beside", purpose="jwt", algorithm="ES256", protocol="jwt"
                ).value
    assert b"ticker.failed" not in told_by(dev)
