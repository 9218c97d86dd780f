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
        self._ended: list[tuple[Sequence[GroupWork], float]] = []
        """Calls that are not counted yet, and how long each took, seconds."""

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
        works = [GroupWork(group, group.items) for group in groups]
        await self.run(socket, works, timeout_s, traceparent)
        return [work.reply() for work in works]

    async def run(
        self,
        socket: SocketHandles,
        works: Sequence[GroupWork],
        timeout_s: float,
        traceparent: str = "",
    ) -> None:
        """As `sign`, and the results are in `works`."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        deadline = started + timeout_s
        refused: list[GroupWork] = []
        for work in works:
            try:
                await self._in_the_pod(socket, work, deadline)
            except FailureError as error:
                work.fail(error)
                if work.refused:
                    refused.append(work)
        if refused:
            await self._refusals.record(socket.name, refused, deadline)
        await self._exchange.run(works, deadline, traceparent)
        if not self._ended:
            loop.call_soon(self._measure)  # once replies are on their way
        self._ended.append((works, loop.time() - started))

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

    def _measure(self) -> None:
        """Count the calls that ended in this turn of the loop."""
        ended, self._ended = self._ended, []
        done = 0
        for works, took_s in ended:
            for work in works:
                self._took.record(took_s, metric_name(work.group.algorithm))
                items = len(work.results)
                done += items if work.signed == items else items - self._failed(work)
        if done:
            self._metrics.observe_calls(None, items=done)

    def _failed(self, work: GroupWork) -> int:
        """Count the items of a group that failed; returns how many."""
        failed = 0
        for item in work.results:
            if item is not None and not item.signatures:
                failed += 1
                reason = item.failure.reason
                # one that a newer adapter gives counts as it is read: INTERNAL
                known = reason if reason in REASONS else failures_pb2.REASON_INTERNAL
                self._metrics.observe_calls(known)
        return failed
