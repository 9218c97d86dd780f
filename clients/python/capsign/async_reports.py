"""Tells reports of verifications from an event loop, in the background."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from capsign.errors import CapsignError
from capsign.reports import AGE_S, CLOSING_S, Report, Reports


class AsyncReporter:
    """Of one signer; its task lives while something waits."""

    def __init__(self, tell: Callable[[Report], Awaitable[None]]) -> None:
        """`tell` raises CapsignError."""
        self._tell = tell
        self._task: asyncio.Task[None] | None = None
        self.reports = Reports()

    def add(self, report: Report) -> None:
        """Returns at once. Call it on a running loop."""
        delay_s = 0.0 if self.reports.add(report) else AGE_S
        loop, task = asyncio.get_running_loop(), self._task
        if delay_s and task is not None and not task.done() and task.get_loop() is loop:
            return
        self._task = loop.create_task(self._run(delay_s))

    async def flush(self) -> None:
        """Tell what waits."""
        for report in self.reports.take():
            try:
                await self._tell(report)
            except CapsignError as error:
                self.reports.failed(report, error)

    async def close(self) -> None:
        """Tell what is left, for at most CLOSING_S."""
        task, self._task = self._task, None
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            task.cancel()
        if not self.reports.is_empty():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.flush(), CLOSING_S)

    async def _run(self, delay_s: float) -> None:
        while True:
            await asyncio.sleep(delay_s)
            await self.flush()
            if self.reports.is_empty():
                return
            delay_s = AGE_S
