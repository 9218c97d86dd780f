"""Floods of frames that cost the sender nothing, at an agent's socket and at the adapter's
listeners: memory stays, and whoever is honest is answered.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import capsign
import grpc
import psutil
import pytest
from capsign_wire.adapter.v1 import admin_pb2, admin_pb2_grpc
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from support import http2, raw_http2
from support.dev import Dev
from support.floods import FLOODS, flooding
from support.hostile import deployment, forget_peak, peak, rss

ENOUGH_BYTES = 2 * 1024 * 1024
"""Of a flood, some 30,000 to 200,000 frames."""

ROOM_MIB = 96
"""What it may add to the process."""


@pytest.fixture(scope="module")
def dev():
    with deployment() as one:
        yield one


def withstands(
    process: psutil.Process,
    connect: Callable[[], socket.socket],
    kind: str,
    block: bytes,
    honest: Callable[[], object],
) -> None:
    """The process answers the honest caller for as long as a flood of this kind goes on."""
    before = rss(process)
    forget_peak(process)
    with flooding(connect, kind, block) as flood:
        answered = 0
        while answered < 20 or flood.sent < ENOUGH_BYTES:
            assert honest()
            answered += 1
    assert process.is_running()
    assert peak(process) - before < ROOM_MIB
    assert honest()


@pytest.mark.parametrize("kind", FLOODS)
def test_an_agent_withstands_a_flood_from_one_container(dev, kind):
    def connect() -> socket.socket:
        one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        one.connect(dev.socket())
        return one

    block = http2.grpc_headers(http2.SERVICE + b"Sign")
    with capsign.Signer(dev.socket("worker"), timeout=30) as signer:
        withstands(
            dev.agent,
            connect,
            kind,
            block,
            lambda: signer.sign(b"m", purpose="short", algorithm="Ed25519", protocol="short").value,
        )


@pytest.mark.parametrize("kind", FLOODS)
@pytest.mark.parametrize("where", ["address", "admin"])
def test_an_adapter_withstands_a_flood_of_one_workload(dev, where, kind):
    """The honest caller is a responder who revokes, over the listener for people."""
    block = raw_http2.headers("/capsign.adapter.v1.EvidenceService/GetCheckpoint")
    with people(dev) as channel:
        revoke = admin_pb2_grpc.AdminServiceStub(channel).Revoke
        target = admin_pb2.REVOCATION_KIND_HANDLE

        def honest() -> int:
            """As `capsign revoke` does: where there is no place for it just now, it asks again."""
            asked = admin_pb2.RevokeRequest(kind=target, target=os.urandom(16).hex())
            while True:
                try:
                    return revoke(asked, timeout=30).revocation_epoch
                except grpc.RpcError as error:
                    failure = FailureError.from_rpc(error)
                    assert failure is not None
                    assert failure.reason == reasons.REASON_OVERLOADED

        withstands(dev.adapter(), lambda: over_tls(dev, where), kind, block, honest)


def over_tls(dev: Dev, where: str) -> socket.socket:
    """As the workload `app`."""
    about = dev.about["clients"]["app"]
    context = ssl.create_default_context(cafile=dev.about["ca"])
    context.load_cert_chain(about["certificate"], about["private_key"])
    context.set_alpn_protocols(["h2"])
    host, port = dev.about["adapters"][0][where].split(":")
    raw = socket.create_connection((host, int(port)), timeout=20)
    return context.wrap_socket(raw, server_hostname=dev.about["server_name"])


def people(dev: Dev) -> grpc.Channel:
    about = dev.about["clients"]["responder"]
    files = (dev.about["ca"], about["private_key"], about["certificate"])
    contents = [Path(file).read_bytes() for file in files]
    options = [
        ("grpc.ssl_target_name_override", dev.about["server_name"]),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    return grpc.secure_channel(
        dev.about["adapters"][0]["admin"], grpc.ssl_channel_credentials(*contents), options
    )
