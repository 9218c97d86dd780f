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


class SinkTooLargeError(SinkBusyError):
    """This was more than the sink takes at once: a part of it may pass. `certain` unless a busy
    sink may say the same.
    """

    def __init__(self, said: str, *, certain: bool) -> None:
        super().__init__(said)
        self.certain = certain


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
    taken away before it is written again; what is not the beginning of a line that is written now
    is somebody else's, and gets an end of line. A file that was moved away, as log rotation does,
    is made anew.
    """

    most = 512

    def __init__(self, path: Path | None, values: Callable[[Event], dict[str, Any]]) -> None:
        self._values = values
        self._path = path
        self._handle = os.dup(sys.stdout.fileno()) if path is None else _opened(path)
        self._looked = path is None
        """Whether it is known how the file ended."""

    def take(self, events: Sequence[Event], first: tuple[int, int]) -> None:
        lines = [
            json.dumps(self._values(one), separators=(",", ":")).encode() + b"\n" for one in events
        ]
        data = b"".join(lines)
        if self._path is None:
            self._write(data)
            return
        while True:
            self._follow(self._path)
            if not self._looked:
                self._write(_end_of_line(self._handle, lines))
                self._looked = True
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
            self._looked = False

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._handle, rest) :]

    def close(self) -> None:
        os.close(self._handle)


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)


def _is(handle: int, path: Path) -> bool:
    """Whether the file of this name is the open one."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _end_of_line(handle: int, lines: Sequence[bytes]) -> bytes:
    """What must be written first so that the next line begins a line: nothing, or its end.

    An export that goes on writes again from its cursor, so a line of ours that was cut off is the
    beginning of one of these, and is taken away. Anything else is not ours to take.
    """
    end = os.fstat(handle).st_size
    longest = max(map(len, lines), default=0)
    start = max(end - longest - 1, 0)
    _, newline, tail = os.pread(handle, end - start, start).rpartition(b"\n")
    if not tail:
        return b""
    ours = (newline or start == 0) and any(line.startswith(tail) for line in lines)
    if not ours:
        return b"\n"
    os.ftruncate(handle, end - len(tail))
    return b""
