"""`rpc.client.call.duration`: OpenTelemetry's stable RPC convention (1.45) for every RPC that a
process begins. A stream is one RPC and counts when it ends.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from capsign_wire.metric_catalogue import RPC_SYSTEM
from capsign_wire.telemetry import Metrics


class MeasuredChannel:
    """Give this to a stub in the place of its aio channel. For one event loop."""

    def __init__(self, channel: grpc.aio.Channel, metrics: Metrics) -> None:
        self._channel = channel
        self._durations = metrics.histogram("rpc.client.call.duration")
        self._ending: set[asyncio.Task[None]] = set()

    def unary_unary(self, method: str, **how: Any) -> Callable[..., Any]:
        return self._measured(method, self._channel.unary_unary(method, **how))

    def unary_stream(self, method: str, **how: Any) -> Callable[..., Any]:
        return self._measured(method, self._channel.unary_stream(method, **how))

    def stream_unary(self, method: str, **how: Any) -> Callable[..., Any]:
        return self._measured(method, self._channel.stream_unary(method, **how))

    def stream_stream(self, method: str, **how: Any) -> Callable[..., Any]:
        return self._measured(method, self._channel.stream_stream(method, **how))

    def _measured(self, method: str, begin: Callable[..., Any]) -> Callable[..., Any]:
        name = method.removeprefix("/")

        def measured(*arguments: Any, **how: Any) -> Any:
            started = time.perf_counter()
            rpc = begin(*arguments, **how)
            rpc.add_done_callback(lambda ended: self._ended(name, started, ended))
            return rpc

        return measured

    def _ended(self, method: str, started: float, rpc: Any) -> None:
        """gRPC tells the status to a coroutine only."""
        took_s = time.perf_counter() - started
        task = asyncio.get_running_loop().create_task(self._record(method, took_s, rpc))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _record(self, method: str, took_s: float, rpc: Any) -> None:
        status = (await rpc.code()).name
        # By the convention every status but OK is an error to a client.
        error = "" if status == "OK" else status
        self._durations.record(took_s, RPC_SYSTEM, method, status, error)
