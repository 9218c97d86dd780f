"""How an export that follows a log is, as metrics and lines of its log."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from capsign_wire import logs
from capsign_wire.telemetry import Metrics

from capsign_cli import __version__

PROCESS = "capsign-export"
"""`service.name`, which is the label `job` in Prometheus."""


class ExportStatus:
    """Written by the export, read by the thread that collects metrics. `size`: leaves of the log as
    last seen.
    """

    def __init__(self, leaf: int, now_s: float) -> None:
        self.size = leaf
        self._leaf = leaf
        self._reached_s = now_s
        self._metrics: Metrics | None = None
        self._said = ""
        self._alive: Path | None = None

    def took(self, leaf: int, events: int) -> None:
        """So many more events are the sink's, and what is before this leaf is behind the cursor."""
        self._leaf = leaf
        self._said = ""
        self._touch()
        if self._metrics is not None:
            self._metrics.counter("capsign.export.events").add(by=events)

    def reached(self, size: int, now_s: float) -> None:
        """Everything up to there is exported."""
        self.size = self._leaf = size
        self._reached_s = now_s
        self._said = ""
        self._touch()

    def _touch(self) -> None:
        if self._alive is not None:
            self._alive.touch()

    def failed(self, which: str, why: str) -> None:
        """An attempt at the sink or the source failed. The log tells a reason that is new."""
        self._touch()
        if self._metrics is None:
            return
        self._metrics.counter("capsign.export.failures").add(which)
        if why != self._said:
            logs.warning("export.failed", of=which, why=why)
        self._said = why

    @contextmanager
    def exported(
        self,
        alive: Path | None,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> Iterator[None]:
        """Meanwhile, touch the file `alive` whenever something was tried, write a log for
        machines and export metrics, if the OTEL_* variables ask for
        it. They need OpenTelemetry's SDK; without it there are none.
        """
        from capsign_wire import otel

        metrics = metrics or Metrics()
        metrics.gauge("capsign.export.lag", lambda: max(0, self.size - self._leaf))
        metrics.gauge("capsign.export.age", lambda: clock() - self._reached_s)
        logs.configure(PROCESS)
        self._alive = alive
        self._touch()
        self._metrics = metrics
        telemetry = None
        try:
            telemetry = otel.start(PROCESS, __version__, metrics, os.environ)
        except ModuleNotFoundError as error:
            logs.warning("export.no_metrics", lacks=error.name or "")
        logs.event("export.started", leaf=self._leaf)
        try:
            yield
        finally:
            logs.event("export.ended", leaf=self._leaf)
            if telemetry is not None:
                telemetry.close()
