"""A SPIFFE Workload API on a real Unix socket: FetchX509SVID as the specification has it."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from concurrent import futures
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
from capsign_wire.spiffe.workload import workload_pb2 as pb
from capsign_wire.spiffe.workload import workload_pb2_grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from support.agent_pki import AGENT_ID, TestCa

Stream = queue.SimpleQueue[pb.X509SVIDResponse | None]


class FakeWorkloadApi(workload_pb2_grpc.SpiffeWorkloadAPIServicer):
    """Start it, push identities, stop it. A new stream begins with the latest."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.latest: pb.X509SVIDResponse | None = None
        self.refuse: grpc.StatusCode | None = None
        self.headers: list[str] = []
        """The security header of each call; empty text where it was missing."""
        self.streams: list[Stream] = []
        self._server: grpc.Server | None = None

    def start(self) -> FakeWorkloadApi:
        self._server = grpc.server(
            futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)]
        )
        workload_pb2_grpc.add_SpiffeWorkloadAPIServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"unix:{self.path}")
        self._server.start()
        return self

    def stop(self) -> None:
        self.drop()
        if self._server is not None:
            self._server.stop(None).wait(5)
            self._server = None

    def push(self, *svids: pb.X509SVID) -> None:
        self.latest = pb.X509SVIDResponse(svids=svids)
        for stream in list(self.streams):
            stream.put(self.latest)

    def drop(self) -> None:
        """End every stream, as an agent of the node does when it restarts."""
        for stream in list(self.streams):
            stream.put(None)

    def FetchX509SVID(
        self, request: pb.X509SVIDRequest, context: Any
    ) -> Iterator[pb.X509SVIDResponse]:
        header = dict(context.invocation_metadata()).get("workload.spiffe.io", "")
        self.headers.append(header)
        if header != "true":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")
        if self.refuse is not None:
            context.abort(self.refuse, "no identity issued")
        stream: Stream = queue.SimpleQueue()
        context.add_callback(lambda: stream.put(None))
        if self.latest is not None:
            stream.put(self.latest)
        self.streams.append(stream)
        try:
            while (told := stream.get()) is not None:
                yield told
        finally:
            self.streams.remove(stream)


def svid(
    ca: TestCa, spiffe_id: str = AGENT_ID, life: timedelta = timedelta(hours=1)
) -> pb.X509SVID:
    """One identity with its key, as the API sends it."""
    certificate, key = ca.issue(spiffe_id, life)
    der, pkcs8 = serialization.Encoding.DER, serialization.PrivateFormat.PKCS8
    return pb.X509SVID(
        spiffe_id=spiffe_id,
        x509_svid=x509.load_pem_x509_certificate(certificate).public_bytes(der),
        x509_svid_key=serialization.load_pem_private_key(key, None).private_bytes(
            der, pkcs8, serialization.NoEncryption()
        ),
        bundle=ca.der,
    )
