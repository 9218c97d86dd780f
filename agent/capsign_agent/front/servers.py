"""A gRPC server for each socket: the socket is what identifies the container."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc.aio
from capsign_wire import bounds, logs
from capsign_wire.agent.v1 import agent_pb2_grpc
from capsign_wire.lenient import LenientRegistrar
from capsign_wire.memory_limit import resident
from capsign_wire.rpc_metrics import MeasuredRegistrar
from capsign_wire.telemetry import Metrics
from capsign_wire.tracing import Tracer

from capsign_agent import process
from capsign_agent.front.bounded_rpcs import BoundedRegistrar, RefusedRpcs, server_options
from capsign_agent.front.engines import ENGINES
from capsign_agent.front.memory_budget import LargeCallSlot, MemoryBudget
from capsign_agent.front.memory_shares import MemoryShares
from capsign_agent.front.read_slots import GRACE_S, QUIET_S
from capsign_agent.front.servicer import Service, SigningServicer
from capsign_agent.front.sockets import SocketClaim, SocketError
from capsign_agent.front_settings import Front
from capsign_agent.handles.socket_handles import SocketHandles


class Servers:
    """For one event loop."""

    def __init__(
        self,
        claims: Sequence[SocketClaim],
        service: Service,
        shares: MemoryShares,
        metrics: Metrics,
        front: Front,
    ) -> None:
        """`shares` is what all sockets together may have."""
        self._engine = ENGINES[front.engine]
        self._claims = claims
        self._service = service
        self._shares = shares
        self._metrics = metrics
        self._large_call_slot = LargeCallSlot()
        self._leaving = RefusedRpcs()
        self._servers: list[grpc.aio.Server] = []
        self._servicers: list[SigningServicer] = []
        self.memory: list[MemoryBudget] = []
        """The memory budget of each socket."""

    async def start(self, handles: Sequence[SocketHandles]) -> None:
        """Serve on every socket. Raises SocketError."""
        if self._engine.receives_whole:
            logs.warning("front.memory_unbounded")
        for claim, own in zip(self._claims, handles, strict=True):
            self._servers.append(await self._serve(claim, own))

    async def stop(self) -> None:
        """Stop serving; calls that are under way have 0.2 s."""
        await asyncio.gather(*(server.stop(0.2) for server in self._servers))

    def release(self) -> None:
        """Remove the sockets."""
        for claim in self._claims:
            claim.release()

    @property
    def intact(self) -> bool:
        """Whether all sockets are still the ones that were bound."""
        return all(claim.intact for claim in self._claims)

    @property
    def used(self) -> float:
        """The fraction of its memory that the fullest socket has taken."""
        return max(memory.used for memory in self.memory)

    def trace_with(self, tracer: Tracer) -> None:
        """Use this tracer from now on."""
        for servicer in self._servicers:
            servicer.tracer = tracer

    async def keep_read_slots(self) -> None:
        """Take turns back from who reads too long, and give memory back to the kernel after much
        was held.
        """
        loop, slots = asyncio.get_running_loop(), self._service.read_slots
        giving = process.GivingBack()
        while True:
            await asyncio.sleep(QUIET_S if slots.contended else GRACE_S)
            now = loop.time()
            slots.look(now)
            if giving.due(now, before := resident()):
                process.give_back()
                giving.given(now, before, resident())

    async def _serve(self, claim: SocketClaim, handles: SocketHandles) -> grpc.aio.Server:
        sockets = len(self._claims)
        most = process.connections_for(sockets, self._shares.connections)
        server = self._engine.server(server_options(self._shares, most))
        memory = MemoryBudget(
            self._shares.call_bytes // sockets, self._metrics, self._large_call_slot
        )
        self.memory.append(memory)
        servicer = SigningServicer(handles, memory, self._service)  # 1
        self._servicers.append(servicer)
        whole = self._engine.receives_whole
        measured = MeasuredRegistrar(server, self._metrics, by_name=whole)
        front = BoundedRegistrar(
            measured,
            memory,
            self._service.read_slots,
            self._leaving,
            handles.name,
            receives_whole=whole,
        )
        registrar: Any = LenientRegistrar(front, bounds.MAX_MESSAGE_BYTES)
        agent_pb2_grpc.add_SigningServiceServicer_to_server(servicer, registrar)
        try:
            server.add_insecure_port(claim.address)
        except RuntimeError:
            raise SocketError(
                f"The socket {claim.path} cannot be bound. See that its directory exists "
                f"and has room."
            ) from None
        await server.start()
        claim.bound()
        return server
