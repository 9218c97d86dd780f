"""Delivers the journal to the adapter: at least once, in order within each life, the same bytes
each time.

The adapter takes a batch exactly once and gives the same answer when it comes again, so a crash
between its answer and the deletion here does no harm. If the adapter refuses the next batch of a
life as out of order, that life is set aside for a while and the others go on. Its segments stay on
disk, count against the bound and are tried again; nothing is skipped, and nothing is deleted that
was not taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from capsign_wire import logs
from capsign_wire.adapter.v1 import evidence_pb2
from capsign_wire.failures import FailureError
from capsign_wire.telemetry import Metrics
from capsign_wire.types.v1 import failures_pb2

from capsign_agent.journal import records
from capsign_agent.journal.backlog import Segment
from capsign_agent.journal.directory import JournalError, JournalGoneError
from capsign_agent.journal.journal import Journal
from capsign_agent.retry_delay import retry_delay_s

ROUTINE_S = 900.0
"""Seconds that routine records may wait before they are sent as a batch, and become a leaf: the
lifetime of a handle by default (decision 27). Any other record takes them with it at once.
"""
SHARE, GATHERED_S = 0.05, 3.0
"""Part of the time in which an agent's reports may be under way, and seconds that records gather at
most for its sake: where adapters have much to do, their answers take longer, and each report of
many agents carries more (decision 90). A segment that is full does not wait.
"""
ASIDE_S = 30.0
"""Seconds before a life that was set aside is tried again."""


class Adapter(Protocol):
    """The call that takes batches. Raises FailureError."""

    def submit(
        self, request: evidence_pb2.SubmitAuditRequest
    ) -> Awaitable[evidence_pb2.SubmitAuditResponse]: ...


class Reporter:
    """For one event loop."""

    def __init__(
        self,
        journal: Journal,
        adapter: Adapter,
        metrics: Metrics,
        flush_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._adapter = adapter
        self._metrics = metrics
        self._flush_s = flush_s
        self._clock = clock
        self._aside: dict[str, float] = {}
        self._sealed_at = self._alive_at = self._next_s = clock()
        self._taken_leaf = 0

    async def run(self) -> None:
        """Deliver until cancelled; failures are repeated with back-off and jitter."""
        failures = 0
        while True:
            await asyncio.sleep(self._flush_s if not failures else retry_delay_s(failures))
            self._journal.look_again()
            if self._due():
                self._say_alive()
                self._journal.seal()
                self._sealed_at = self._clock()
            failures = 0 if await self.deliver() else failures + 1

    def _due(self) -> bool:
        """Whether what was written is to be sent now."""
        now_s = self._clock()
        if self._journal.pressing and now_s >= self._next_s:
            return True
        return now_s >= self._sealed_at + ROUTINE_S

    async def deliver(self) -> bool:
        """Send what is sealed, oldest first; returns False if the adapter could not take all
        of it. Raises JournalGoneError if records are lost: the agent must end, and begin another
        life that says so.
        """
        for segment in self._journal.sealed():
            if self._aside.get(segment.boot, 0.0) > self._clock():
                continue
            try:
                await self._send(segment)
            except FailureError as error:
                self._metrics.counter("capsign.retries").add("audit")
                if error.outcome != failures_pb2.OUTCOME_REFUSED:
                    return False
                self._set_aside(segment, error.row.name)
            except JournalGoneError:
                raise
            except JournalError:
                self._set_aside(segment, "DAMAGED")
        return True

    async def flush(self) -> bool:
        """Seal and deliver until nothing is left; returns False if that failed. For a drain; the
        caller sets the timeout.
        """
        failures = 0
        while True:
            self._journal.seal()
            if await self.deliver():
                return not self._journal.waiting
            failures += 1
            await asyncio.sleep(retry_delay_s(failures))

    async def _send(self, segment: Segment) -> None:
        self._metrics.histogram("capsign.batch.size").record(segment.records, "audit")
        began_s = self._clock()
        answer = await self._adapter.submit(evidence_pb2.SubmitAuditRequest(batch=segment.batch()))
        ended_s = self._clock()
        self._next_s = ended_s + min((ended_s - began_s) / SHARE, GATHERED_S)
        if answer.accepted_through < segment.last_sequence:
            raise FailureError(
                failures_pb2.REASON_AUDIT_OUT_OF_ORDER, "The adapter took less than was sent."
            )
        self._journal.delivered(segment)
        self._taken_leaf = answer.leaf_index + 1

    def _say_alive(self) -> None:
        """Every ROUTINE_S: a life that says nothing for long is silent, and what was signed before
        the leaf that this record names has been told of by now (decision 59).
        """
        if self._clock() < self._alive_at + ROUTINE_S or self._journal.full:
            return
        self._alive_at = self._clock()
        with contextlib.suppress(FailureError):  # the disk is full, which refusals tell
            self._journal.append(records.alive(self._taken_leaf), routine=True)

    def _set_aside(self, segment: Segment, reason: str) -> None:
        """Set a life aside: the adapter misses a batch before this one, or has another in its
        place. Nothing is deleted; a person must look at it.
        """
        self._aside[segment.boot] = self._clock() + ASIDE_S
        logs.error("audit.refused", boot=segment.boot, segment=segment.path.name, reason=reason)
