"""A certificate from the node's SPIFFE implementation: FetchX509SVID of the SPIFFE Workload API,
over its Unix socket.

The stream sends the identities and the bundle of their trust domain, and all of it again whenever
something changes. Bundles of other trust domains and revocation lists are ignored: agent and
adapter are in one trust domain, and SVIDs are short-lived.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
from collections.abc import AsyncGenerator
from pathlib import Path

import grpc
import grpc.aio
from capsign_wire import channels, unix_socket
from capsign_wire.pem import written as pem_of
from capsign_wire.spiffe.workload import workload_pb2, workload_pb2_grpc

from capsign_agent.config import WorkloadApi
from capsign_agent.identity import der
from capsign_agent.identity.credentials import Credentials, CredentialsError, checked
from capsign_agent.identity.events import IdentityEvents
from capsign_agent.identity.source import IdentityError
from capsign_agent.timing import Timing

MAX_ANSWER_BYTES = 1024 * 1024
CONNECT_S = 2.0
MAX_CERTIFICATES = 16
"""Most certificates of a chain, and most authorities of a bundle."""

SECURITY_HEADER = (("workload.spiffe.io", "true"),)
"""Metadata that every call must carry (SPIFFE Workload Endpoint specification), so that a browser
cannot be made to send one.
"""


class WorkloadApiIdentity:
    """See `IdentitySource`."""

    def __init__(self, config: WorkloadApi, events: IdentityEvents, timing: Timing) -> None:
        self._config = config
        self._events = events
        self._timing = timing

    def authorities_changed(self, sequence: int) -> None:
        """Does nothing: the Workload API sends the bundle when it changes."""

    async def changes(self) -> AsyncGenerator[Credentials, None]:
        held: Credentials | None = None
        failures = 0
        while True:
            try:
                async with contextlib.aclosing(self._stream()) as stream:
                    async for answer in stream:
                        fresh = self._chosen(answer)
                        failures = 0
                        if fresh == held:
                            continue
                        self._tell(held, fresh)
                        held = fresh
                        yield fresh
            except IdentityError as error:
                self._events.hindered(error)
            failures += 1  # it ended without an error too: both mean that it has to be opened again
            await asyncio.sleep(self._timing.retry_delay_s(failures))

    def _tell(self, before: Credentials | None, fresh: Credentials) -> None:
        if before is None:
            self._events.issued("workload-api", fresh)
        else:
            self._events.renewed("workload-api", fresh)

    async def _stream(self) -> AsyncGenerator[workload_pb2.X509SVIDResponse, None]:
        """The messages of one stream, until it ends. Raises IdentityError."""
        options = [
            ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        async with channels.aio_insecure(
            unix_socket.target(self._config.socket), options
        ) as channel:
            stub = workload_pb2_grpc.SpiffeWorkloadAPIStub(channel)
            try:
                async for answer in stub.FetchX509SVID(
                    workload_pb2.X509SVIDRequest(), metadata=SECURITY_HEADER
                ):
                    yield answer
            except grpc.aio.AioRpcError as error:
                if error.code() in {
                    grpc.StatusCode.PERMISSION_DENIED,
                    grpc.StatusCode.INVALID_ARGUMENT,
                }:
                    sentence = (
                        "The Workload API gives this workload no identity. Register it there."
                    )
                    raise IdentityError("WORKLOAD_API_REFUSED", sentence) from None
                sentence = (
                    f"The Workload API at {self._config.socket} does not answer. See that its "
                    f"volume is mounted."
                )
                raise IdentityError("WORKLOAD_API_UNREACHABLE", sentence) from None

    def _chosen(self, answer: workload_pb2.X509SVIDResponse) -> Credentials:
        """The identity to use, of those sent. Raises IdentityError."""
        wanted = self._config.spiffe_id
        found = [one for one in answer.svids if not wanted or one.spiffe_id == wanted]
        if not found:
            raise IdentityError(
                "WORKLOAD_API_REFUSED",
                f"The Workload API has no identity {wanted} for this workload.",
            )
        svid = found[0]
        try:
            chain, authorities = (
                der.certificates(one, MAX_CERTIFICATES) for one in (svid.x509_svid, svid.bundle)
            )
            made = checked(pem_of(authorities), pem_of(chain), _private(svid.x509_svid_key))
        except CredentialsError as error:
            sentence = (
                f"What the Workload API sent is no X.509-SVID with its key. {error.why}".strip()
            )
            raise IdentityError("CREDENTIALS_UNUSABLE", sentence) from None
        except ValueError:
            raise IdentityError(
                "CREDENTIALS_UNUSABLE", "What the Workload API sent is no X.509-SVID with its key."
            ) from None
        if made.spiffe_id != svid.spiffe_id:
            sentence = (
                "The Workload API sent a certificate that names another identity than it "
                "says. Look at its registration."
            )
            raise IdentityError("CREDENTIALS_UNUSABLE", sentence)
        return made


def reachable(path: Path) -> None:
    """Check that a process listens at the socket. Raises IdentityError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_S)
        try:
            probe.connect(str(path))
        except OSError:
            sentence = (
                f"The Workload API at {path} does not answer. See that its volume is mounted."
            )
            raise IdentityError("WORKLOAD_API_UNREACHABLE", sentence) from None


def _private(key: bytes) -> bytes:
    return (
        b"-----BEGIN PRIVATE KEY-----\n" + base64.encodebytes(key) + b"-----END PRIVATE KEY-----\n"
    )
