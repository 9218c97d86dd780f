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
    taken away before anything follows it. A file that was moved away, as log rotation does, is made
    anew.
    """

    most = 512

    def __init__(self, path: Path | None, values: Callable[[Event], dict[str, Any]]) -> None:
        self._values = values
        self._path = path
        self._handle = os.dup(sys.stdout.fileno()) if path is None else _opened(path)

    def take(self, events: Sequence[Event], first: tuple[int, int]) -> None:
        lines = (json.dumps(self._values(one), separators=(",", ":")) for one in events)
        data = "".join(f"{line}\n" for line in lines).encode()
        if self._path is None:
            self._write(data)
            return
        while True:
            self._follow(self._path)
            self._write(data)
            os.fsync(self._handle)
            # Moved away meanwhile: whoever moved it may have read it to its end before that.
            if _is(self._handle, self._path):
                return

    def _follow(self, path: Path) -> None:
        """Write to what has the name now, not to what had it."""
        if not _is(self._handle, path):
            new = _opened(path)
            os.close(self._handle)
            self._handle = new

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._handle, rest) :]

    def close(self) -> None:
        os.close(self._handle)


def _opened(path: Path) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    _cut_torn_line(handle)
    return handle


def _is(handle: int, path: Path) -> bool:
    """Whether the file of this name is the open one."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


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
