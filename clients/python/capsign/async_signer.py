"""The client for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import os
import weakref
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc
from capsign_wire import unix_socket

from capsign import requests
from capsign.agent_socket import AgentSocket
from capsign.agent_status import AgentStatus
from capsign.async_connection import AsyncConnection, end_all
from capsign.async_reports import AsyncReporter
from capsign.async_stream import cancelled
from capsign.call import (
    Ask,
    Call,
    Found,
    Sleep,
    Step,
    Submit,
    asking,
    asking_status,
    clock,
    cut_off,
    listing,
    receiving,
    resolving,
    signing,
)
from capsign.channel import CONNECT_SLICE
from capsign.errors import CapsignError
from capsign.handle_selector import HandleSelector
from capsign.handles import HandleCache
from capsign.inputs import Buffer, IntentId, algorithm_row, item, row_or_open, selector_of
from capsign.receipts import Receipt
from capsign.reports import TIMEOUT_S, Report
from capsign.results import KeyHandle, KeySet, PublicKey, Resolution, Signature
from capsign.signature_rule import Given, Rule, Signatures, verifying
from capsign.signer import DEFAULT_TIMEOUT, WINDOW
from capsign.socket_address import socket_path
from capsign.tracing import current_traceparent
from capsign.translate import key_set, public_key

if TYPE_CHECKING:
    pass


class AsyncSigner:
    """Signs through the agent of this pod, for asyncio. All that `Signer` says holds here, except
    for forks: gRPC for asyncio does not survive one, so close the signer before, or use it in the
    children only. Calls are coroutines.

    It opens a connection in each event loop that it is used in, and keeps it until the loop or the
    signer is closed. Cancelling a call does not affect others that share a message with it. What
    was asked for may still be signed, so give `intent_id` if you need to know.
    """

    def __init__(
        self,
        socket: str | os.PathLike[str] | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        coalesce: bool = True,
        window: int = WINDOW,
        connect_timeout: float = CONNECT_SLICE,
    ) -> None:
        path = socket_path(socket)
        self._target, self._agent_socket = (
            unix_socket.target(path),
            AgentSocket(path, requests.seconds(connect_timeout, CONNECT_SLICE)),
        )
        self._timeout = timeout
        self._coalesce = coalesce
        self._window = requests.messages_in_flight(window)
        self._book = HandleCache()
        self._connections: dict[asyncio.AbstractEventLoop, AsyncConnection] = {}
        self._closed = False
        here = weakref.ref(self)

        async def tell(report: Report) -> None:
            # its task must not keep one alive that nobody else holds any more
            signer = here()
            if signer is not None:
                await signer._told(report)

        self._reporter = AsyncReporter(tell)
        # Dropped without being closed: its tasks would keep its streams open for as long as their
        # loops run.
        weakref.finalize(self, end_all, self._connections).atexit = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """As `Signer.close`."""
        if not self._closed:
            await self._reporter.close()
        self._closed = True
        here = self._connections.pop(asyncio.get_running_loop(), None)
        end_all(self._connections)
        self._connections.clear()
        if here is not None and here.usable:
            await here.close()

    async def sign(
        self,
        message: Buffer | None = None,
        *,
        digest: Buffer | None = None,
        purpose: str | None = None,
        grant: str | None = None,
        handle: str | KeyHandle | None = None,
        algorithm: str | None = None,
        protocol: str = "",
        role: str = "",
        protocol_version: str = "",
        transcript: Buffer = b"",
        intent_id: IntentId | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # a deadline that the agent is told, not only a cancellation
    ) -> Signature:
        """As `Signer.sign`."""
        selector = selector_of(
            purpose, grant, handle, algorithm, protocol, role, protocol_version, transcript
        )
        entry = item(row_or_open(algorithm), message, digest, intent_id)
        call = signing(
            self._book,
            selector,
            [entry],
            requests.seconds(timeout, self._timeout),
            current_traceparent(),
        )
        try:
            outcome = (await self._drive(call))[0]
        except CapsignError as error:
            raise requests.concerning(error, entry.intent_id, selector) from None
        if isinstance(outcome, CapsignError):
            raise outcome
        return outcome

    async def sign_many(
        self,
        messages: Sequence[Buffer] = (),
        *,
        digests: Sequence[Buffer] = (),
        purpose: str | None = None,
        grant: str | None = None,
        handle: str | KeyHandle | None = None,
        algorithm: str | None = None,
        protocol: str = "",
        role: str = "",
        protocol_version: str = "",
        transcript: Buffer = b"",
        intent_ids: Sequence[IntentId] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # as in sign
    ) -> list[Signature | CapsignError]:
        """As `Signer.sign_many`."""
        selector = selector_of(
            purpose, grant, handle, algorithm, protocol, role, protocol_version, transcript
        )
        many = requests.Many(row_or_open(algorithm), messages, digests, intent_ids)
        call = signing(
            self._book,
            selector,
            many.items,
            requests.seconds(timeout, self._timeout),
            current_traceparent(),
        )
        return many.merged(await self._drive(call))

    async def verify(
        self,
        message: Buffer | None,
        signature: Given,
        *,
        rule: Rule = "either",
        required: Collection[str] = (),
        digest: Buffer | None = None,
        purpose: str | None = None,
        grant: str | None = None,
        handle: str | KeyHandle | None = None,
        algorithm: str | None = None,
        protocol: str = "",
        role: str = "",
        protocol_version: str = "",
        transcript: Buffer = b"",
        timeout: float | None = None,  # noqa: ASYNC109  # as in sign
    ) -> PublicKey:
        """As `Signer.verify`."""
        signatures = Signatures(signature, algorithm, rule, required)

        def selector(name: str) -> HandleSelector:
            return selector_of(
                purpose, grant, handle, name, protocol, role, protocol_version, transcript
            )

        left = requests.seconds(timeout, self._timeout)
        return await self._drive(
            verifying(self._book, selector, (message, digest), signatures, left)
        )

    async def public_keys(
        self,
        *,
        purpose: str | None = None,
        grant: str | None = None,
        handle: str | KeyHandle | None = None,
        algorithm: str,
        protocol: str = "",
        role: str = "",
        protocol_version: str = "",
        transcript: Buffer = b"",
        timeout: float | None = None,  # noqa: ASYNC109  # as in sign
    ) -> list[PublicKey]:
        """As `Signer.public_keys`."""
        selector = selector_of(
            purpose, grant, handle, algorithm, protocol, role, protocol_version, transcript
        )
        build = requests.key_query(selector, algorithm_row(algorithm))
        call = asking(
            self._book, selector, "GetPublicKeys", build, requests.seconds(timeout, self._timeout)
        )
        return [public_key(key) for key in (await self._drive(call)).keys]

    async def jwks(
        self,
        *,
        purpose: str | None = None,
        grant: str | None = None,
        handle: str | KeyHandle | None = None,
        protocol: str = "",
        role: str = "",
        protocol_version: str = "",
        timeout: float | None = None,  # noqa: ASYNC109  # as in sign
    ) -> KeySet:
        """As `Signer.jwks`."""
        selector = selector_of(purpose, grant, handle, "", protocol, role, protocol_version)
        build, left = requests.jwks_query(selector), requests.seconds(timeout, self._timeout)
        found = await self._drive(asking(self._book, selector, "GetJwks", build, left))
        return key_set(found)

    async def report_verification(
        self,
        kid: str,
        ok: bool,
        *,
        count: int = 1,
        purpose: str | None = None,
        grant: str | None = None,
        handle: str | KeyHandle | None = None,
        algorithm: str,
        protocol: str = "",
        role: str = "",
        protocol_version: str = "",
        transcript: Buffer = b"",
        wait: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109  # as in sign
    ) -> None:
        """Tell that `count` signatures by the key `kid` of this context did, or did not, verify:
        who verifies without the agent keeps a rollout from going on where verifiers fail. It is
        counted at least once.

        It returns at once: reports wait up to a second for company and are told in the background,
        the last of them when this is closed. With `wait` it returns when the agent has it, and
        raises Refused if the context has no such key, Unavailable, or Unknown.
        """
        selector = selector_of(
            purpose, grant, handle, algorithm, protocol, role, protocol_version, transcript
        )
        row, told = (
            algorithm_row(algorithm),
            Report(selector, kid, count if ok else 0, 0 if ok else count),
        )
        requests.report(selector, row, told)("checked")
        if wait:
            await self._told(told, requests.seconds(timeout, self._timeout))
        else:
            self._reporter.add(told)

    async def _told(self, report: Report, left: float = TIMEOUT_S) -> None:
        """Tell the agent of one."""
        row = algorithm_row(report.selector.algorithm)
        build = requests.report(report.selector, row, report)
        await self._drive(asking(self._book, report.selector, "ReportVerifications", build, left))

    async def resolve(
        self,
        intent: IntentId | CapsignError,
        *,
        purpose: str | None = None,
        grant: str | None = None,
        handle: str | KeyHandle | None = None,
        algorithm: str = "",
        timeout: float | None = None,  # noqa: ASYNC109  # as in sign
    ) -> Resolution:
        """As `Signer.resolve`."""
        intent_id, selector = requests.intent_parts(
            intent, selector_of(purpose, grant, handle, algorithm)
        )
        return await self._drive(
            resolving(self._book, selector, intent_id, requests.seconds(timeout, self._timeout))
        )

    async def receipt(
        self,
        of: Signature | IntentId,
        *,
        leaf_index: int = 0,
        timeout: float | None = None,  # noqa: ASYNC109  # as in sign
    ) -> Receipt:
        """As `Signer.receipt`."""
        request = requests.receipt_query(of, leaf_index)
        left = requests.seconds(timeout, self._timeout)
        response = await self._drive(receiving(request, left))
        return requests.receipt(response, of, request.intent_id)

    async def status(self, *, timeout: float | None = None) -> AgentStatus:  # noqa: ASYNC109  # as in sign
        """As `Signer.status`."""
        return await self._drive(asking_status(requests.seconds(timeout, self._timeout)))

    async def handles(self, *, timeout: float | None = None) -> tuple[KeyHandle, ...]:  # noqa: ASYNC109  # as in sign
        """As `Signer.handles`."""
        return await self._drive(
            listing(self._book, clock() + requests.seconds(timeout, self._timeout))
        )

    async def _drive(self, call: Call[Found]) -> Found:
        connection = self._open()
        try:
            step: Step = next(call)
            while True:
                step = call.send(await self._perform(connection, step))
        except StopIteration as stop:
            found: Found = stop.value
            return found

    def _open(self) -> AsyncConnection:
        if self._closed:
            raise RuntimeError("this AsyncSigner is closed")
        loop = asyncio.get_running_loop()
        connection = self._connections.get(loop)
        if connection is None or not connection.usable:
            # which another thread, with a loop of its own, may be changing
            for known in list(self._connections):
                if known.is_closed():
                    self._connections.pop(known, None)
            self._book.forget()
            connection = self._connections[loop] = AsyncConnection(
                self._target, self._agent_socket, self._window, self._book
            )
        return connection

    async def _perform(self, connection: AsyncConnection, step: Step) -> Any:
        if self._closed:
            return cut_off(step)
        try:
            return await self._do(connection, step)
        except (grpc.aio.UsageError, asyncio.CancelledError):
            # gRPC's words for a channel that was closed just now
            if self._closed and not cancelled():
                return cut_off(step)
            raise

    async def _do(self, connection: AsyncConnection, step: Step) -> Any:
        if isinstance(step, Submit):
            if self._coalesce:
                return await connection.stream.run(step.jobs)
            return [await connection.sign(job) for job in step.jobs]
        if isinstance(step, Ask):
            ask = connection.list_handles if step.method == "ListHandles" else connection.ask
            return await ask(step)
        assert isinstance(step, Sleep)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(step.seconds):
                await connection.closing.wait()
        return None
