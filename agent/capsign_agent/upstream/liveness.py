"""Whether a replica is heard from: one that the kernel does not run, or that hangs, keeps its
connections and answers nothing.

A connection that stands proves little. Once an answer is late the replica counts as silent, and is
asked something small, again and again, until it answers anything: a refusal is an answer too.
Nothing is asked of one that answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import grpc.aio

ASK_S = 2.0
"""How long one answer may take."""

PAUSE_S = 1.0

_NOBODY = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
}
"""What gRPC says by itself where nobody has answered."""


class Liveness:
    """Of one replica; for one event loop."""

    def __init__(self, ask: Callable[[float], Awaitable[object]]) -> None:
        """`ask` makes a small call with this timeout, seconds."""
        self._ask = ask
        self._asking: asyncio.Task[None] | None = None

    @property
    def silent(self) -> bool:
        """An answer was late, and none has come since."""
        return self._asking is not None

    def fell_silent(self) -> None:
        """An answer is late."""
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._until_heard())

    def heard(self) -> None:
        """It has answered something."""
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
