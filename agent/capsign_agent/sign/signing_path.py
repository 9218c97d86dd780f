"""The signing path: takes the groups of one call through the steps that `sign` lists."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.algorithms import metric_name
from capsign_wire.failures import REASONS, FailureError
from capsign_wire.telemetry import Metrics
from capsign_wire.types.v1 import failures_pb2
from capsign_wire.types.v1 import signing_pb2 as types_pb2

from capsign_agent.handles.finder import HandleFinder
from capsign_agent.handles.socket_handles import SocketHandles
from capsign_agent.handles.unavailable import NotYetError
from capsign_agent.sign.admission import admit, demand_algorithm
from capsign_agent.sign.exchange import Exchange
from capsign_agent.sign.group_work import GroupWork
from capsign_agent.sign.inputs import Inputs
from capsign_agent.sign.refusals import Refusals


class SigningPath:
    """For all sockets. For one event loop."""

    def __init__(
        self,
        finder: HandleFinder,
        inputs: Inputs,
        refusals: Refusals,
        exchange: Exchange,
        metrics: Metrics,
    ) -> None:
        self._finder = finder
        self._inputs = inputs
        self._refusals = refusals
        self._exchange = exchange
        self._metrics = metrics
        self._took = metrics.histogram("capsign.call.duration")

    async def sign(
        self,
        socket: SocketHandles,
        groups: Sequence[agent_pb2.SignGroup],
        timeout_s: float,
        traceparent: str = "",
    ) -> list[types_pb2.SignedGroup]:
        """Sign the items of these groups; returns a result for every item of every group, in order.
        Never raises a FailureError: each item carries its own.

        The groups have passed `bounds.check` and hold at most MAX_BATCH_ITEMS items in all. If the
        caller gives up (the task is cancelled), what was not sent is withdrawn; the outcome of what
        was sent is recorded when its answer comes.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        deadline = started + timeout_s
        works = [GroupWork(group) for group in groups]
        for work in works:
            try:
                await self._in_the_pod(socket, work, deadline)
            except FailureError as error:
                work.fail(error)
        if refused := [work for work in works if work.refused]:
            await self._refusals.record(socket.name, refused, deadline)
        await self._exchange.run(works, deadline, traceparent)
        replies = [work.reply() for work in works]
        loop.call_soon(self._measure, works, loop.time() - started)  # once the reply is on its way
        return replies

    async def _in_the_pod(self, socket: SocketHandles, work: GroupWork, deadline: float) -> None:
        """Steps 3 to 6, which need no adapter. Raises FailureError if the whole group fails."""
        demand_algorithm(work)
        handle_id = work.group.handle_id
        try:
            held = self._finder.find(socket, handle_id)  # 3
        except NotYetError:
            left_s = deadline - asyncio.get_running_loop().time()
            held = await self._finder.wait_for(socket, handle_id, left_s)
        admit(work, held, self._finder.now())
        await self._inputs.prepare(work, deadline)

    def _measure(self, works: Sequence[GroupWork], took_s: float) -> None:
        for work in works:
            self._took.record(took_s, metric_name(work.group.algorithm))
            results = work.results
            if work.whole is not None:
                self._metrics.observe_calls(None, items=len(results))
                continue
            failed = [
                item.failure.reason for item in results if item is not None and not item.signatures
            ]
            for reason in failed:  # one that a newer adapter gives counts as it is read: INTERNAL
                self._metrics.observe_calls(
                    reason if reason in REASONS else failures_pb2.REASON_INTERNAL
                )
            if len(failed) < len(results):
                self._metrics.observe_calls(None, items=len(results) - len(failed))
