"""The agent's health: grpc.health.v1 on a socket of its own, and one line of text for the exec
probe.

It has a server of its own, because the bounds on calls would refuse health checks too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from capsign_agent.front.sockets import SocketClaim

EVERY_S = 0.25
"""Seconds between two looks at the state, for those that `Watch` it."""

Faults = Callable[[], list[str]]
"""Returns what keeps the agent from signing, as words of an enumeration; empty means that it
serves.
"""


class _Current(health.aio.HealthServicer):  # type: ignore[misc]  # it ships no types
    """Health service whose `Check` looks at the state now; `Watch` hears of it every EVERY_S
    seconds.
    """

    def __init__(self, refresh: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._refresh = refresh

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC names methods as the proto does
        await self._refresh()
        return await super().Check(request, context)


class Health:
    """Serves both sockets until closed."""

    def __init__(
        self, path: Path, probe_path: Path, faults: Faults, advice: Callable[[], str] = lambda: ""
    ) -> None:
        """`faults` returns what keeps the agent from signing; `advice` returns what to do about it,
        if that is known, and is shown to the probe only.
        """
        self._faults = faults
        self._advice = advice
        self._claims = [SocketClaim(path, 0o660), SocketClaim(probe_path, 0o660)]
        self._servicer = _Current(self.refresh)
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", 4096),
                ("grpc.so_reuseport", 0),
                ("grpc.http2.max_ping_strikes", 0),  # pings are answered: decision 80
            ]
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, self._server)
        self._probe: asyncio.Server | None = None
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        grpc_claim, probe_claim = self._claims
        self._server.add_insecure_port(grpc_claim.address)
        await self._server.start()
        grpc_claim.bound()
        self._probe = await asyncio.start_unix_server(self._tell, path=str(probe_claim.path))
        probe_claim.bound()
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        if self._probe is not None:
            self._probe.close()
        await self._server.stop(None)
        for claim in self._claims:
            claim.release()

    @property
    def intact(self) -> bool:
        """Whether both sockets are still the ones that were bound."""
        return all(claim.intact for claim in self._claims)

    async def refresh(self) -> None:
        """Look at the state now and tell those that watch it."""
        serving = (
            health_pb2.HealthCheckResponse.NOT_SERVING
            if self._faults()
            else health_pb2.HealthCheckResponse.SERVING
        )
        for service in ("", "capsign.agent.v1.SigningService"):
            await self._servicer.set(service, serving)

    async def _watch(self) -> None:
        while True:
            await self.refresh()
            await asyncio.sleep(EVERY_S)

    async def _tell(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        faults = self._faults()
        advice = self._advice()
        words = " ".join(faults) + (f". {advice}" if advice else "")
        line = f"NOT_SERVING {words}\n" if faults else "SERVING\n"
        # A probe may connect and leave: that must not disturb anything.
        with contextlib.suppress(OSError):
            writer.write(line.encode())
            await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
