"""Where exported events go: lines in a file or on standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from capsign_evidence.archive.events import Event


class SinkBusyError(Exception):
    """The sink did not take it, and may when it is asked again."""


class Sink(Protocol):
    """Takes events in order. What `take` returned for is the sink's, and survives the export's
    crash; what it raised for may be there too, and is brought again.
    """

    most: int
    """How many events it takes at once."""

    def take(self, events: Sequence[Event], first: tuple[int, int]) -> None:
        """Take these; `first` is leaf and place in it of the first. Raises SinkBusyError, CliError
        if it never will, or OSError.
        """

    def close(self) -> None:
        """Give back what it holds."""


class LinesSink:
    """JSON lines, appended to a file or written to standard output. A line that a crash cut off is
    taken away before anything follows it.
    """

    most = 512

    def __init__(self, path: Path | None, values: Callable[[Event], dict[str, Any]]) -> None:
        self._values = values
        self._durable = path is not None
        if path is None:
            self._handle = os.dup(sys.stdout.fileno())
        else:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
            self._handle = os.open(path, flags, 0o600)
            _cut_torn_line(self._handle)

    def take(self, events: Sequence[Event], first: tuple[int, int]) -> None:
        lines = (json.dumps(self._values(one), separators=(",", ":")) for one in events)
        rest = memoryview("".join(f"{line}\n" for line in lines).encode())
        while rest:
            rest = rest[os.write(self._handle, rest) :]
        if self._durable:
            os.fsync(self._handle)

    def close(self) -> None:
        os.close(self._handle)


def _cut_torn_line(handle: int) -> None:
    """End the file behind its last whole line."""
    end = os.fstat(handle).st_size
    at = end
    while at > 0:
        start = max(at - (1 << 16), 0)
        found = os.pread(handle, at - start, start).rfind(b"\n")
        if found >= 0:
            at = start + found + 1
            break
        at = start
    if at != end:
        os.ftruncate(handle, at)
