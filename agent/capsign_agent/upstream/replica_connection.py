"""One connection to a replica and its stubs. `redial` replaces the channel by a new one.

gRPC waits between its attempts to connect, about six seconds after a long outage, and its API
cannot shorten that. A new channel begins at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
from capsign_wire.adapter.v1 import (
    capability_pb2_grpc,
    evidence_pb2_grpc,
    identity_pb2_grpc,
    signing_pb2_grpc,
)
from capsign_wire.rpc_client_metrics import MeasuredChannel
from capsign_wire.telemetry import Metrics

_UNDER_WAY = {grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING}


class Stubs:
    """The stubs of one channel, or of a test's substitute for one."""

    def __init__(self, channel: Any) -> None:
        self.capabilities = capability_pb2_grpc.CapabilityServiceStub(channel)
        self.signing = signing_pb2_grpc.SigningServiceStub(channel)
        self.evidence = evidence_pb2_grpc.EvidenceServiceStub(channel)
        self.identity = identity_pb2_grpc.IdentityServiceStub(channel)


class ReplicaConnection:
    """For one event loop."""

    def __init__(self, dial: Callable[[], grpc.aio.Channel], metrics: Metrics) -> None:
        """`dial` makes a channel."""
        self._dial = dial
        self._metrics = metrics
        self._redialled = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()
        self.channel = dial()
        self.ask = Stubs(MeasuredChannel(self.channel, self._metrics))

    @property
    def ready(self) -> bool:
        """Whether the channel is connected."""
        return self.channel.get_state() is grpc.ChannelConnectivity.READY

    def redial(self) -> None:
        """Try to connect now, if the last attempt failed. An attempt that is under way goes on."""
        if self.channel.get_state() is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            return
        closing = asyncio.get_running_loop().create_task(self.channel.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self.channel = self._dial()
        self.ask = Stubs(MeasuredChannel(self.channel, self._metrics))
        self.channel.get_state(try_to_connect=True)
        self._redialled.set()
        self._redialled = asyncio.Event()

    async def attempt_ended(self) -> None:
        """Wait until the attempt that is under way has succeeded or failed."""
        channel = self.channel
        while (state := channel.get_state(try_to_connect=True)) in _UNDER_WAY:
            try:
                await channel.wait_for_state_change(state)
            except grpc.aio.UsageError:
                return  # it was closed meanwhile

    async def connected(self) -> None:
        """Wait until it is connected, over this channel or one that replaces it."""
        while not self.ready:
            waits = [
                asyncio.ensure_future(self.channel.channel_ready()),
                asyncio.ensure_future(self._redialled.wait()),
            ]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
                await asyncio.gather(*waits, return_exceptions=True)

    async def close(self) -> None:
        await asyncio.gather(self.channel.close(), *self._closing)
