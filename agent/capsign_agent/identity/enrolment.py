"""Enrol: the one call without a client certificate, over TLS that authenticates the adapter
only.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import time
from typing import Any

import grpc
import grpc.aio
from capsign_wire import addresses, channels, tls_trust
from capsign_wire.adapter.v1 import identity_pb2, identity_pb2_grpc
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_agent.config import Upstream

MAX_ANSWER_BYTES = 64 * 1024

_WORST_FIRST = ("CERTIFICATE_ENDED", "TRUST_OUTDATED", "NAME_UNRESOLVED")
"""Which fault of several addresses is reported. A wrong clock comes first, because it may cause the
others; a wrong name last, because another address may be right.
"""


class Enrolment:
    """Makes the call at each replica in turn. For one event loop. Each call has a connection of its
    own, because the trusted authorities may have changed since the last.
    """

    def __init__(self, targets: tuple[str, ...], upstream: Upstream) -> None:
        self._targets = targets
        self._timeout_s = upstream.timeout_ms / 1000
        self._server_name = upstream.server_name
        self._options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
            ("grpc.enable_retries", 0),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if upstream.server_name:
            self._options.append(("grpc.ssl_target_name_override", upstream.server_name))

    async def enrol(
        self, request: identity_pb2.EnrolRequest, authorities: bytes
    ) -> identity_pb2.EnrolResponse:
        """The answer of the first replica that gives one. The token is sent only to servers whose
        certificate chains to `authorities`. Raises FailureError: a refusal by any replica is final;
        after any other failure the next replica is asked.
        """
        until = time.monotonic() + self._timeout_s
        last = FailureError(
            failures_pb2.REASON_UPSTREAM_UNREACHABLE,
            "No enrolment address answers with a certificate that the trust bundle vouches for.",
            retry_after_ms=500,
        )
        targets = random.sample(self._targets, len(self._targets))
        for number, target in enumerate(targets):
            share_s = (until - time.monotonic()) / (len(targets) - number)
            if share_s <= 0:
                break
            try:
                return await self._ask(target, request, authorities, share_s)
            except FailureError as error:
                if error.outcome == failures_pb2.OUTCOME_REFUSED:
                    raise
                last = error
            except grpc.aio.AioRpcError:
                continue
        raise last

    async def misfit(self, authorities: bytes) -> str:
        """Why no replica could be reached, as one of LOCAL_REASONS: what is wrong with an address
        or with the certificate at it. Empty if nothing is known to be wrong. gRPC itself does not
        tell these apart from a server that is down.
        """
        context = tls_trust.context(authorities.decode("ascii"))
        context.set_alpn_protocols(["h2"])
        found = await asyncio.gather(
            *(self._misfit_of(target, context) for target in self._targets)
        )
        return next((word for word in _WORST_FIRST if word in found), "")

    async def _misfit_of(self, target: str, context: ssl.SSLContext) -> str:
        there = addresses.target(target)
        try:
            async with asyncio.timeout(self._timeout_s):
                _, writer = await asyncio.open_connection(
                    there.host,
                    there.port,
                    ssl=context,
                    server_hostname=self._server_name or there.host,
                )
        except ssl.SSLCertVerificationError as error:
            return "CERTIFICATE_ENDED" if tls_trust.out_of_time(error) else "TRUST_OUTDATED"
        except socket.gaierror:
            return "NAME_UNRESOLVED"
        except (OSError, TimeoutError):
            return ""
        writer.transport.abort()
        return ""

    async def _ask(
        self, target: str, request: identity_pb2.EnrolRequest, authorities: bytes, share_s: float
    ) -> identity_pb2.EnrolResponse:
        credentials = grpc.ssl_channel_credentials(authorities)
        async with channels.aio_secure(
            addresses.target(target).dial, credentials, self._options
        ) as channel:
            try:
                return await identity_pb2_grpc.EnrolmentServiceStub(channel).Enrol(
                    request, timeout=share_s
                )
            except grpc.aio.AioRpcError as error:
                told = FailureError.from_rpc(error)
                if told is not None:
                    raise told from None
                if error.code() not in {
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                }:
                    raise FailureError(
                        failures_pb2.REASON_INTERNAL, "The adapter answered in no known way."
                    ) from None
                raise
