"""The connections under one certificate, and unary calls with failover between replicas.

When the certificate changes, a new generation of connections is made, handles are fetched over it
(they are bound to the certificate's key), and then the streams of the old generation end. Before
the first certificate there is a generation without replicas, which refuses every call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Container, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import grpc
import grpc.aio
from capsign_wire import addresses, channels, logs
from capsign_wire.adapter.v1 import identity_pb2
from capsign_wire.bounds import MAX_ANSWER_BYTES, MAX_MESSAGE_BYTES
from capsign_wire.failures import FailureError
from capsign_wire.telemetry import Metrics
from capsign_wire.types.v1 import failures_pb2

from capsign_agent.config import Upstream as UpstreamConfig
from capsign_agent.identity.credentials import Credentials
from capsign_agent.upstream.liveness import Liveness
from capsign_agent.upstream.replica_connection import ReplicaConnection, Stubs

T = TypeVar("T")

_NO_IDENTITY = "The agent has no identity yet; its health says why."
_SMALL = identity_pb2.GetTrustBundleRequest()


def channel_options(config: UpstreamConfig) -> list[tuple[str, Any]]:
    """gRPC's settings of every channel to an adapter. Its own retries are off, because `streams`
    decides what is sent again.
    """
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_metadata_size", 16 * 1024),
        # A replica that the kernel does not run is noticed after 17 s, though nothing is asked.
        # Adapters allow a ping each 10 s.
        ("grpc.keepalive_time_ms", 12_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        # Not a wait but what an attempt may take at least. The first had 0.1 s before: a handshake
        # beside many others takes longer.
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.http2.lookahead_bytes", 1024 * 1024),
    ]
    if config.server_name:
        options.append(("grpc.ssl_target_name_override", config.server_name))
    return options


class Replica:
    """One replica, with a connection for each signing stream. Unary calls use the first connection
    that is open.
    """

    def __init__(
        self, address: str, config: UpstreamConfig, held: Credentials, metrics: Metrics
    ) -> None:
        self.address = address
        options, dial = channel_options(config), addresses.target(address).dial
        self.connections = [
            ReplicaConnection(lambda: channels.aio_secure(dial, held.channel(), options), metrics)
            for _ in range(config.streams)
        ]
        self.busy = 0
        """How many of its signing streams are busy."""
        self.draining = False
        """Whether it announced that it stops; it is asked last then."""
        self.liveness = Liveness(
            lambda seconds: self.ask.identity.GetTrustBundle(_SMALL, timeout=seconds)
        )

    @property
    def ask(self) -> Stubs:
        """The stubs for unary calls. After an outage each connection waits for itself before it
        tries again, so the second may be open seconds before the first.
        """
        ready = (connection for connection in self.connections if connection.ready)
        return next(ready, self.connections[0]).ask

    async def close(self) -> None:
        self.liveness.close()
        await asyncio.gather(*(connection.close() for connection in self.connections))


_GRPCS_OWN: Mapping[grpc.StatusCode, Callable[[], FailureError]] = MappingProxyType(
    {
        grpc.StatusCode.RESOURCE_EXHAUSTED: lambda: FailureError(
            failures_pb2.REASON_OVERLOADED,
            "All places of the adapters are taken.",
            retry_after_ms=500,
        ),
        grpc.StatusCode.UNIMPLEMENTED: lambda: FailureError(
            failures_pb2.REASON_ADAPTER_TOO_OLD, "The adapter is older and does not know this call."
        ),
    }
)
"""What gRPC says before an adapter has looked at a call, and what it means if all replicas do."""


class ConnectionGeneration:
    """The replicas under one certificate; without a certificate there are none."""

    def __init__(
        self,
        config: UpstreamConfig,
        held: Credentials | None,
        metrics: Metrics,
        why_no_identity: Callable[[], str] = lambda: "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`why_no_identity` says why there is no certificate yet, if that is known."""
        self.config = config
        self._why_no_identity = why_no_identity
        self._clock = clock
        self._begins, self._ends = (held.begins, held.ends) if held is not None else (0.0, 0.0)
        self._said = ""
        """gRPC's message when a replica could not be reached the last time."""
        self._told_expired = False
        self.targets = (
            [Replica(address, config, held, metrics) for address in config.targets]
            if held is not None
            else []
        )
        self.left: list[Replica] = []
        """Replicas that are not used any more."""

    @property
    def silent(self) -> bool:
        """Whether there are replicas and none of them answers."""
        return bool(self.targets) and all(target.liveness.silent for target in self.targets)

    def remaining_s(self, now: float) -> float:
        """Seconds until the certificate ends; 0 if it has ended or there is none."""
        return max(0.0, self._ends - now)

    def fault(self, now: float) -> str:
        """The word for health if the certificate is not valid now; empty if it is, or if there is
        none.
        """
        if not self._ends:
            return ""
        if now < self._begins:
            return "certificate_not_yet_valid"
        return "" if self.remaining_s(now) else "certificate_ended"

    async def unary(self, call: Callable[[Replica, float], Awaitable[T]], timeout_s: float) -> T:
        """Make a call at the first replica that answers; `call` is given the replica and its share
        of the time. Only for calls that may be repeated.

        Raises FailureError: the adapter's own, UPSTREAM_UNREACHABLE, or OVERLOADED if the last
        replica asked had no room for the call, ADAPTER_TOO_OLD if it does not know it.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        why: FailureError | None = None
        targets = sorted(self.targets, key=lambda one: one.draining)
        for number, target in enumerate(targets):
            # one that hangs must leave time for the others
            share = (until - loop.time()) / (len(targets) - number)
            if share <= 0:
                break
            try:
                answer = await call(target, share)
                target.liveness.heard()
                return answer
            except grpc.aio.AioRpcError as error:
                why = self._noted(target, error)
            except asyncio.CancelledError:
                if asked_to_stop():
                    raise
                break  # this generation was closed under the call
        raise why if why is not None else self.unreachable()

    def _noted(self, target: Replica, error: grpc.aio.AioRpcError) -> FailureError | None:
        """Note why a replica did not answer a call, before the next one is asked; returns the
        failure if that one is the last, None if it was not reached. Raises FailureError if it did
        answer.
        """
        told = FailureError.from_rpc(error)
        if told is not None:
            if told.reason != failures_pb2.REASON_DRAINING:
                raise told from None
            target.draining = True
            return None
        code = error.code()
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            target.liveness.fell_silent()
        why = _GRPCS_OWN.get(code)
        if why is None and code not in {
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DEADLINE_EXCEEDED,
        }:
            raise FailureError(
                failures_pb2.REASON_INTERNAL, "The adapter answered in no known way."
            ) from None
        self._said = error.details() or ""
        self.last_to_ask(target)
        return why() if why is not None else None

    def unreachable(self) -> FailureError:
        """The failure UPSTREAM_UNREACHABLE, with the cause if it is a certificate, a clock or a
        name; LOG_SPLIT_VIEW if no replica is left that may be used.
        """
        if self.left and not self.targets:
            return FailureError(failures_pb2.REASON_LOG_SPLIT_VIEW, retry_after_ms=5000)
        if not self._ends:
            why = self._why_no_identity()
            detail = f"The agent has no identity yet: {why}" if why else _NO_IDENTITY
        elif not self.remaining_s(self._clock()):
            detail = "The agent's own certificate has expired."
            if not self._told_expired:
                self._told_expired = True
                logs.error("credentials.expired")
        elif self._clock() < self._begins:
            begins = f"it begins at {_moment(self._begins)}, and {self._says()}"
            detail = (
                f"The agent's own certificate is not valid yet by its clock: {begins}. See to "
                f"the clock of its node."
            )
        elif "certificate is not yet valid" in self._said:
            detail = (
                f"No adapter can be reached: its certificate is not valid yet, for "
                f"{self._says()}. Set the clock that is wrong."
            )
        elif "certificate has expired" in self._said:
            detail = (
                f"No adapter can be reached: its certificate has ended, for {self._says()}. Renew "
                f"it, or set the clock."
            )
        elif "address lookup failed" in self._said or "DNS resolution failed" in self._said:
            detail = (
                "No adapter can be reached: its name cannot be resolved. See to the DNS of the "
                "agent's pod; with `dnsPolicy: None` that is its `dnsConfig`."
            )
        else:
            detail = "No adapter can be reached."
        return FailureError(failures_pb2.REASON_UPSTREAM_UNREACHABLE, detail, retry_after_ms=500)

    def _says(self) -> str:
        return f"this node's clock says {_moment(self._clock())}"

    def redial(self) -> list[ReplicaConnection]:
        """Start an attempt to connect to every replica now, over its first connection. Returns
        these connections.
        """
        connections = [target.connections[0] for target in self.targets]
        for connection in connections:
            connection.redial()
        return connections

    async def close(self) -> None:
        await asyncio.gather(*(target.close() for target in (*self.targets, *self.left)))

    def first(self) -> Replica:
        """The replica to ask first. Raises FailureError if there is none."""
        if not self.targets:
            raise self.unreachable()
        return min(self.targets, key=lambda one: one.draining)

    def ask_another_first(self) -> None:
        """Move the replica that is asked first to the end: it takes no more for now."""
        if self.targets:
            self.last_to_ask(self.first())

    def last_to_ask(self, target: Replica) -> None:
        """Move this replica to the end: a call to it failed."""
        if target in self.targets:
            self.targets.remove(target)
            self.targets.append(target)

    def leave(self, addresses: Container[str]) -> list[Replica]:
        """Use the replicas with these addresses no more; returns them. Their connections stay open
        for what is in flight.
        """
        leaving = [target for target in self.targets if target.address in addresses]
        self.targets = [target for target in self.targets if target not in leaving]
        self.left += leaving
        return leaving


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))


def asked_to_stop() -> bool:
    """Whether a CancelledError means that this task was cancelled. gRPC raises the same error when
    a channel is closed under a call.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
