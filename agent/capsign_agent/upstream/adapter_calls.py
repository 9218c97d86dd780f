"""The agent's unary calls to the adapter and its Watch stream, made at whichever replica answers.

When the certificate changes, the old connections are closed under calls that are under way. All of
these calls may be repeated, so they are made again over the new connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import grpc
import grpc.aio
from capsign_wire.adapter.v1 import capability_pb2, evidence_pb2, identity_pb2, signing_pb2
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_agent.handles.unavailable import ended_upstream
from capsign_agent.upstream.connection_generation import (
    ConnectionGeneration,
    Replica,
    asked_to_stop,
)

T = TypeVar("T")


class AdapterCalls:
    """Every method raises FailureError and nothing else. `current` returns the connections in use;
    `handle_ended` is called when an adapter says that a handle has expired.
    """

    def __init__(
        self,
        current: Callable[[], ConnectionGeneration],
        timeout_s: float,
        handle_ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._current = current
        self._handle_ended = handle_ended
        self._timeout_s = timeout_s

    async def issue(self, grants: list[str]) -> capability_pb2.IssueHandlesResponse:
        request = capability_pb2.IssueHandlesRequest(grants=grants)
        return await self._unary(
            lambda to, left: to.ask.capabilities.IssueHandles(request, timeout=left),
            self._timeout_s,
        )

    async def renew(self, tokens: list[bytes]) -> capability_pb2.RenewHandlesResponse:
        request = capability_pb2.RenewHandlesRequest(tokens=tokens)
        return await self._unary(
            lambda to, left: to.ask.capabilities.RenewHandles(request, timeout=left),
            self._timeout_s,
        )

    async def public_keys(
        self, request: signing_pb2.GetPublicKeysRequest
    ) -> signing_pb2.GetPublicKeysResponse:
        return await self._unary(
            lambda to, left: to.ask.signing.GetPublicKeys(request, timeout=left), self._timeout_s
        )

    async def jwks(self, request: signing_pb2.GetJwksRequest) -> signing_pb2.GetJwksResponse:
        return await self._unary(
            lambda to, left: to.ask.signing.GetJwks(request, timeout=left), self._timeout_s
        )

    async def resolve(
        self, request: signing_pb2.ResolveIntentRequest, timeout_s: float
    ) -> signing_pb2.ResolveIntentResponse:
        return await self._unary(
            lambda to, left: to.ask.signing.ResolveIntent(request, timeout=left), timeout_s
        )

    async def verify_tag(
        self, request: signing_pb2.VerifyTagRequest, timeout_s: float
    ) -> signing_pb2.VerifyTagResponse:
        return await self._unary(
            lambda to, left: to.ask.signing.VerifyTag(request, timeout=left), timeout_s
        )

    async def receipt(
        self, request: evidence_pb2.GetReceiptRequest, timeout_s: float
    ) -> evidence_pb2.GetReceiptResponse:
        return await self._unary(
            lambda to, left: to.ask.evidence.GetReceipt(request, timeout=left), timeout_s
        )

    async def submit(
        self, request: evidence_pb2.SubmitAuditRequest
    ) -> evidence_pb2.SubmitAuditResponse:
        try:
            return await self._unary(
                lambda to, left: to.ask.evidence.SubmitAudit(request, timeout=left), self._timeout_s
            )
        except FailureError as error:
            # Signatures pay for their reports where they were made, and all replicas make them: the
            # next one is asked next.
            if error.reason == failures_pb2.REASON_RATE_LIMITED:
                self._current().ask_another_first()
            raise

    async def renew_identity(self, asked: identity_pb2.RenewRequest) -> identity_pb2.RenewResponse:
        return await self._unary(
            lambda to, left: to.ask.identity.Renew(asked, timeout=left), self._timeout_s
        )

    async def trust_bundle(self) -> identity_pb2.GetTrustBundleResponse:
        request = identity_pb2.GetTrustBundleRequest()
        return await self._unary(
            lambda to, left: to.ask.identity.GetTrustBundle(request, timeout=left), self._timeout_s
        )

    async def _unary(self, call: Callable[[Replica, float], Awaitable[T]], timeout_s: float) -> T:
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        while True:
            upstream = self._current()
            try:
                return await upstream.unary(call, until - loop.time())
            except FailureError as error:
                replaced = (
                    self._current() is not upstream
                    and error.reason == failures_pb2.REASON_UPSTREAM_UNREACHABLE
                )
                if error.reason == failures_pb2.REASON_HANDLE_EXPIRED:
                    # By the adapter's clock, which decides. Nobody withdrew it: it is renewed, and
                    # the same may be asked again.
                    self._handle_ended()
                    raise ended_upstream(error) from None
                if not replaced or loop.time() >= until:
                    raise

    async def watch(self) -> AsyncIterator[capability_pb2.WatchResponse]:
        """The messages of one replica's Watch stream, until it ends or breaks. A replica that
        announces that it drains is asked last from then on.
        """
        upstream = self._current()
        target = upstream.first()
        try:
            async for told in target.ask.capabilities.Watch(capability_pb2.WatchRequest()):
                target.draining = told.draining
                yield told
                if told.draining or self._current() is not upstream:
                    return
        except grpc.aio.AioRpcError as error:
            upstream.last_to_ask(target)
            raise FailureError.from_rpc(error) or upstream.unreachable() from None
        except asyncio.CancelledError:
            if asked_to_stop():
                raise
            # The generation was closed under the stream: the next one is watched.
