"""The agent's unary calls and the Watch stream, at whichever replica of the current generation answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import grpc
import grpc.aio
from capsign_wire.adapter.v1 import capability_pb2, evidence_pb2, signing_pb2
from capsign_wire.failures import FailureError

from capsign_agent.upstream import Upstream


class AdapterCalls:
    """Every method raises FailureError and nothing else. `current` gives the generation of connections in use."""

    def __init__(self, current: Callable[[], Upstream], timeout_s: float) -> None:
        self._current = current
        self._timeout_s = timeout_s

    async def issue(self, grants: list[str]) -> capability_pb2.IssueHandlesResponse:
        request = capability_pb2.IssueHandlesRequest(grants=grants)
        return await self._current().unary(lambda to, left: to.capabilities.IssueHandles(request, timeout=left), self._timeout_s)

    async def renew(self, tokens: list[bytes]) -> capability_pb2.RenewHandlesResponse:
        request = capability_pb2.RenewHandlesRequest(tokens=tokens)
        return await self._current().unary(lambda to, left: to.capabilities.RenewHandles(request, timeout=left), self._timeout_s)

    async def public_keys(self, request: signing_pb2.GetPublicKeysRequest) -> signing_pb2.GetPublicKeysResponse:
        return await self._current().unary(lambda to, left: to.signing.GetPublicKeys(request, timeout=left), self._timeout_s)

    async def resolve(self, request: signing_pb2.ResolveIntentRequest, timeout_s: float) -> signing_pb2.ResolveIntentResponse:
        return await self._current().unary(lambda to, left: to.signing.ResolveIntent(request, timeout=left), timeout_s)

    async def verify_tag(self, request: signing_pb2.VerifyTagRequest, timeout_s: float) -> signing_pb2.VerifyTagResponse:
        return await self._current().unary(lambda to, left: to.signing.VerifyTag(request, timeout=left), timeout_s)

    async def submit(self, request: evidence_pb2.SubmitAuditRequest) -> evidence_pb2.SubmitAuditResponse:
        return await self._current().unary(lambda to, left: to.evidence.SubmitAudit(request, timeout=left), self._timeout_s)

    async def watch(self) -> AsyncIterator[capability_pb2.WatchResponse]:
        """What one replica tells, until it ends or breaks. A replica that drains is asked last from then on."""
        upstream = self._current()
        target = upstream.first()
        try:
            async for told in target.capabilities.Watch(capability_pb2.WatchRequest()):
                target.draining = told.draining
                yield told
                if told.draining or self._current() is not upstream:
                    return
        except grpc.aio.AioRpcError as error:
            upstream.last_to_ask(target)
            raise FailureError.from_rpc(error) or upstream.unreachable() from None
