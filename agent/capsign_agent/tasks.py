"""Runs parts of the agent as tasks until they are cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from capsign_wire import logs


class Tasks:
    """For one event loop."""

    def __init__(self, failed: Callable[[], None]) -> None:
        """`failed` is called when one of them ends by an exception, which is logged."""
        self._failed = failed
        self._running: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> frozenset[asyncio.Task[None]]:
        """The tasks that have not ended."""
        return frozenset(self._running)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start one more."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logs.error("agent.task_failed", task.exception())
            self._failed()


async def cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel these tasks and wait until they have ended, for one second at most."""
    cancelled = set(tasks)
    for task in cancelled:
        task.cancel()
    if cancelled:
        await asyncio.wait(cancelled, timeout=1.0)
