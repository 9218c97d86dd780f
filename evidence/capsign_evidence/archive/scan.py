"""Finds events in an archive: tiles that cannot hold any are passed over by their summaries,
entries by their bytes, and only what is left is decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from capsign_evidence.archive.entry_events import of_entry
from capsign_evidence.archive.events import AGENT, UNREADABLE, Event
from capsign_evidence.archive.interface import Archive, Batch
from capsign_evidence.archive.record_events import of_batch
from capsign_evidence.archive.selection import Selection, select
from capsign_evidence.archive.summary import rules_out, terms_of
from capsign_evidence.leaf import Kind
from capsign_evidence.merkle import TILE_WIDTH

STEP = 64 * TILE_WIDTH
"""Leaves between two reports of progress."""

_BATCH = bytes((Kind.AGENT_BATCH,))


@dataclass(frozen=True, slots=True)
class Looked:
    """How far a scan has come: leaves behind it, of how many, and how many of them were read."""

    through: int
    size: int
    read: int


def find(
    archive: Archive,
    selection: Selection,
    *,
    first: int = 0,
    upto: int | None = None,
    summaries: bool = True,
    tell: Callable[[Looked], None] = lambda _: None,
) -> Iterator[Event]:
    """The selected events from leaf `first` up to, and without, `upto`, in reading order; up to the
    size that the archive has now where that is not given. Bounded memory, whatever there is.

    `summaries`: pass over tiles whose summary does not have what is asked for, and entries and
    batches whose bytes do not; without it every one is read and decoded, so that what cannot be
    read is among the events whatever is asked for. Conditions on a pod are also met by what its
    certificates signed. Raises ArchiveError.
    """
    size = archive.size if upto is None else upto
    selection = _with_certificates(archive, selection, size, summaries)
    read = 0
    for start, end in _runs(archive, selection, max(first, archive.first), size, summaries):
        tell(Looked(start, size, read))
        for at in range(start, end, STEP):
            upto = min(at + STEP, end)
            yield from _in(archive, selection, at, upto, everything=not summaries)
            read += upto - at
            tell(Looked(upto, size, read))
    tell(Looked(size, size, read))


def _with_certificates(
    archive: Archive, selection: Selection, size: int, summaries: bool
) -> Selection:
    """The selection, with the keys of certificates that were issued to the pods it names: entries
    of signatures name those, not pods.
    """
    pods = {value for one in selection.conditions for name, value in one if name == "pod"}
    if not pods:
        return selection
    issued = Selection(select({"pod": pods, "what": ["identity-issued"]}))
    keys = {
        event.cert_key_hash
        for start, end in _runs(archive, issued, archive.first, size, summaries)
        for event in _in(archive, issued, start, end, everything=not summaries)
        if event.what != UNREADABLE
    }
    more = frozenset(("certificate", key) for key in keys)
    conditions = tuple(
        one | more if any(name == "pod" for name, _ in one) else one for one in selection.conditions
    )
    return replace(selection, conditions=conditions)


def _runs(
    archive: Archive, selection: Selection, first: int, size: int, summaries: bool
) -> Iterator[tuple[int, int]]:
    """Neighbouring leaves that must be read, as long as there are any up to `size`."""
    held = archive.summaries(first // TILE_WIDTH) if summaries else iter(())
    wanted = terms_of(selection.conditions)
    start = first
    for tile, data in held:
        begin, end = tile * TILE_WIDTH, (tile + 1) * TILE_WIDTH
        if end > size:
            break
        if rules_out(data, selection, wanted):
            if start < begin:
                yield start, begin
            start = max(start, end)
    if start < size:
        yield start, size


def _in(
    archive: Archive, selection: Selection, first: int, last: int, *, everything: bool
) -> Iterator[Event]:
    """The selected events of these leaves; with `everything` none is ruled out by its bytes."""
    batches: Iterable[Batch] = ()
    if AGENT in selection.streams:
        batches = archive.batches(first, last - first)
    records = _Batches(iter(batches), selection, everything)
    rules_out, matches = selection.rules_out, selection.matches
    for index, entry in enumerate(archive.entries(first, last - first), first):
        if everything or not rules_out(entry):
            event = of_entry(index, entry)
            if matches(event):
                yield event
        if entry[1:2] == _BATCH and AGENT in selection.streams:
            yield from records.of(index, entry)


class _Batches:
    def __init__(self, batches: Iterator[Batch], selection: Selection, everything: bool) -> None:
        self._batches = batches
        self._selection = selection
        self._everything = everything
        self._held = next(batches, None)

    def of(self, index: int, entry: bytes) -> Iterator[Event]:
        """The selected records of the batch whose leaf this is: they are of the workload that the
        leaf names, which the log's root covers, whatever a column of the store says.
        """
        while self._held is not None and self._held[0] < index:
            self._held = next(self._batches, None)
        event = of_entry(index, entry)
        if self._held is None or self._held[0] != index or event.what == UNREADABLE:
            yield replace(event, stream=AGENT, what=UNREADABLE, batch_hash=b"")
            return
        batch = self._held[2]
        if not self._everything and self._selection.rules_out_batch(event.workload, batch):
            return
        since, until = self._selection.since_ms, self._selection.until_ms
        records = of_batch(index, event.workload, batch, event.batch_hash, (since, until))
        yield from filter(self._selection.matches, records)
