"""Brings events to a sink, in order and at least once: the loop of `capsign audit export`.

Everything is bounded: a batch of the sink's size is in memory, one attempt has the sink's time, and
attempts end after `give_up_s` unless the export follows a log that grows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from capsign_wire.backoff import Backoff

from capsign_cli.audit.export_cursor import Cursor, CursorFile, must_continue
from capsign_cli.audit.export_sinks import Sink, SinkBusyError
from capsign_cli.audit.export_status import ExportStatus
from capsign_cli.audit.finding import find
from capsign_cli.failures import UNAVAILABLE, CliError

if TYPE_CHECKING:
    from capsign_evidence.archive import Archive
    from capsign_evidence.archive.events import Event
    from capsign_evidence.archive.selection import Selection

BETWEEN_ATTEMPTS = Backoff(0.5, 30.0)

LOOKS_BEHIND = 12
"""Looks at a log that is shorter than what was exported before that is an error: replicas show a
checkpoint one after another.
"""

Place = tuple[int, int]
"""Leaf, and how many selected events of it are before."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait: between looks at a log that grows, and for a sink that takes nothing.
    `give_up_s` None: for ever.
    """

    poll_s: float
    give_up_s: float | None
    wait: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


class Export:
    """One export, from where its cursor is."""

    summaries = True
    """Whether tiles are passed over by their summaries; else every entry is read."""
    status: ExportStatus

    def __init__(
        self,
        archive: Archive,
        selection: Selection,
        sink: Sink,
        file: CursorFile,
        cursor: Cursor,
        patience: Patience,
        say: Callable[[str], None],
    ) -> None:
        self._archive = archive
        self._selection = selection
        self._sink = sink
        self._file = file
        self.cursor = cursor
        self._patience = patience
        self._say = say
        self.status = ExportStatus(cursor.leaf, patience.clock())

    def check(self) -> None:
        """Raise CliError unless the archive continues what was exported before."""
        held = self._hash(self.cursor.leaf - 1) if self.cursor.leaf <= self._archive.size else ""
        must_continue(self.cursor, self._archive.first, self._archive.size, held)

    def once(self) -> int:
        """Export what there is now; how many events."""
        before = self.cursor.events
        size = self._archive.size
        self.status.size = size
        for batch in _batches(self._placed(size), self._sink.most):
            first, _ = batch[0]
            self._deliver([event for _, event in batch], first)
            leaf, taken = batch[-1][0]
            self._keep(self.cursor.after(leaf, taken + 1, len(batch)))
        if (self.cursor.leaf, self.cursor.taken) != (size, 0):
            # what was passed over is behind it too
            self._keep(replace(self.cursor, leaf=size, taken=0, last_hash=self._hash(size - 1)))
        return self.cursor.events - before

    def follow(self) -> None:
        """Export what there is and what comes, for ever: an archive that cannot be read now is
        read again. Raises CliError where to go on would be wrong.
        """
        from capsign_evidence.archive import ArchiveError

        failures = behind = 0
        while True:
            try:
                size = self._archive.size
                if size < self.cursor.leaf and behind < LOOKS_BEHIND:
                    behind += 1  # another replica, which has yet to see what this one showed
                else:
                    self.check()
                    self.once()
                    failures = behind = 0
                    self.status.reached(self.cursor.leaf, self._patience.clock())
            except ArchiveError as error:
                if error.damaged:
                    raise
                failures += 1
                self.status.failed("source", error.message)
                self._patience.wait(BETWEEN_ATTEMPTS.delay_s(failures))
                continue
            self._patience.wait(self._patience.poll_s)

    def _placed(self, size: int) -> Iterator[tuple[Place, Event]]:
        """The events from the cursor on, each with its place."""
        leaf, taken, start = -1, 0, self.cursor
        found = find(
            self._archive,
            self._selection,
            leaves=range(start.leaf, size),
            summaries=self.summaries,
        )
        for event in found:
            taken = taken + 1 if event.index == leaf else 0
            leaf = event.index
            if leaf == start.leaf and taken < start.taken:
                continue
            yield (leaf, taken), event

    def _deliver(self, events: list[Event], first: Place) -> None:
        failures, began = 0, self._patience.clock()
        while True:
            try:
                self._sink.take(events, first)
            except SinkBusyError as error:
                failures += 1
                self.status.failed("sink", str(error))
                waited = self._patience.clock() - began
                limit = self._patience.give_up_s
                if limit is not None and waited >= limit:
                    text = f"The sink took nothing for {waited:.0f} s: {error}."
                    advice = "The same command goes on from the cursor when it does."
                    raise CliError(UNAVAILABLE, "SINK", text, advice) from None
                self._say(f"leaf {first[0]:,}: the sink is busy ({error}), attempt {failures + 1}")
                self._patience.wait(BETWEEN_ATTEMPTS.delay_s(failures))
            else:
                return

    def _keep(self, cursor: Cursor) -> None:
        cursor = replace(cursor, last_hash=self._hash(cursor.leaf - 1))
        self._file.write(cursor)
        self.status.took(cursor.leaf, cursor.events - self.cursor.events)
        self.cursor = cursor
        self._say(f"{cursor.events:,} events, leaf {cursor.leaf:,} of {self._archive.size:,}")

    def _hash(self, leaf: int) -> str:
        if leaf < self._archive.first:
            return ""
        found = self._archive.hashes(0, leaf, 1)
        return found[0].hex() if found else ""


def _batches(
    placed: Iterable[tuple[Place, Event]], most: int
) -> Iterator[list[tuple[Place, Event]]]:
    batch: list[tuple[Place, Event]] = []
    for one in placed:
        batch.append(one)
        if len(batch) == most:
            yield batch
            batch = []
    if batch:
        yield batch
