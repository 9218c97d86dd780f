"""Whether a replica answers. One that hangs, or that the kernel does not run, keeps its connections
open.

Once an answer is late the replica counts as silent. It is then asked for something small, again and
again, until it answers anything, a refusal included. A replica that answers is not asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import grpc.aio

ASK_S = 2.0
"""Seconds that an answer may take."""

PAUSE_S = 1.0

_NOBODY = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
}
"""Status codes that gRPC itself sets if no server answered."""


class Liveness:
    """Of one replica. For one event loop."""

    def __init__(self, ask: Callable[[float], Awaitable[object]]) -> None:
        """`ask` makes a small call with the timeout it is given, seconds."""
        self._ask = ask
        self._asking: asyncio.Task[None] | None = None

    @property
    def silent(self) -> bool:
        """Whether an answer was late and none has come since."""
        return self._asking is not None

    def fell_silent(self) -> None:
        """An answer is late: start to ask."""
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._until_heard())

    def heard(self) -> None:
        """An answer has come."""
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None

    close = heard

    async def _until_heard(self) -> None:
        while True:
            if await self._answers():
                self._asking = None
                return
            await asyncio.sleep(PAUSE_S)

    async def _answers(self) -> bool:
        try:
            await self._ask(ASK_S)
        except grpc.aio.AioRpcError as error:
            return error.code() not in _NOBODY
        return True
