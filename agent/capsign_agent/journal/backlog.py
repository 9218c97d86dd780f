"""The sealed segments of this life and of earlier ones, which wait for delivery."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from capsign_agent.journal import frames
from capsign_agent.journal.directory import JournalGoneError, damaged


@dataclass(frozen=True, slots=True)
class Segment:
    """A sealed segment: one AuditBatch."""

    path: Path
    boot: str
    last_sequence: int
    records: int
    size: int
    """Bytes on disk."""
    used: Counter[str] = field(default_factory=Counter)
    """Bytes of records in it, by socket."""
    refused: Counter[str] = field(default_factory=Counter)
    """Bytes of refusals in it, by socket."""

    def batch(self) -> bytes:
        """The bytes that are sent, always the same. Raises JournalError if the file has changed
        since it was sealed, JournalGoneError if it is not there.
        """
        try:
            found = frames.read(self.path)
        except FileNotFoundError:
            raise JournalGoneError(f"Somebody has removed {self.path}.") from None
        if not found.whole:
            raise damaged(self.path)
        return b"".join(found.payloads)


class Backlog:
    """Segments of the oldest life first, in order within each life. For one event loop."""

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self.size_bytes = 0
        self.torn_bytes = 0
        """Bytes of incomplete frames that recovery dropped."""

    def add(self, segment: Segment) -> None:
        """Add a sealed segment."""
        self.segments.append(segment)
        self.size_bytes += segment.size

    def remove(self, segment: Segment) -> None:
        """It was delivered: delete its file. If the process is killed before that, the same bytes
        are sent again.
        """
        segment.path.unlink(missing_ok=True)
        self.segments.remove(segment)
        self.size_bytes -= segment.size
