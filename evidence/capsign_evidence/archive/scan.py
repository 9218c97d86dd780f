"""Finds events in an archive: tiles that cannot hold any are passed over by their summaries,
entries by their bytes, and only what is left is decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from capsign_evidence.archive.attribution import (
    Attribution,
    Policies,
    ReadPolicies,
    needs_policies,
    read_policies,
)
from capsign_evidence.archive.entry_events import of_entry
from capsign_evidence.archive.events import AGENT, UNREADABLE, Event
from capsign_evidence.archive.interface import Archive, Batch
from capsign_evidence.archive.lives import lives_of
from capsign_evidence.archive.record_events import of_batch
from capsign_evidence.archive.selection import Condition, Selection, Value, select
from capsign_evidence.archive.summary import rules_out, terms_of
from capsign_evidence.leaf_kinds import Kind
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
    leaves: range | None = None,
    summaries: bool = True,
    tell: Callable[[Looked], None] = lambda _: None,
    policies: ReadPolicies | None = None,
) -> Iterator[Event]:
    """The selected events of these leaves, in reading order; of all that the archive has now if
    none are given. Bounded memory, whatever there is.

    `summaries`: pass over tiles whose summary does not have what is asked for, and entries and
    batches whose bytes do not; without it every one is read and decoded, so that what cannot be
    read is among the events whatever is asked for.

    Conditions on a pod or certificate are also met by what its certificates signed and by the
    records of the agents that had them. Conditions on tenant, key and version are met by agents'
    records too if `policies` says how documents are read (`archive.attribution`). Raises
    ArchiveError.
    """
    first, size = (leaves.start, leaves.stop) if leaves is not None else (0, archive.size)
    looking = _Looking(archive, size, summaries)
    selection = _with_lives(looking, selection)
    attribution = None
    if policies is not None and AGENT in selection.streams and needs_policies(selection):
        attribution = Attribution(archive, selection, _held_policies(looking, policies))
    read = 0
    for start, end in looking.runs(max(first, archive.first), selection, attribution):
        tell(Looked(start, size, read))
        for at in range(start, end, STEP):
            upto = min(at + STEP, end)
            yield from looking.within(at, upto, selection, attribution)
            read += upto - at
            tell(Looked(upto, size, read))
    tell(Looked(size, size, read))


class _Looking:
    """An archive up to a size, and whether summaries and bytes are believed."""

    def __init__(self, archive: Archive, size: int, summaries: bool) -> None:
        self.archive = archive
        self._size = size
        self._summaries = summaries

    def all(self, selection: Selection) -> Iterator[Event]:
        """The events of a selection, from the first that the archive has."""
        for start, end in self.runs(self.archive.first, selection):
            for at in range(start, end, STEP):
                yield from self.within(at, min(at + STEP, end), selection)

    def runs(
        self, first: int, selection: Selection, attribution: Attribution | None = None
    ) -> Iterator[tuple[int, int]]:
        """Neighbouring leaves that must be read."""
        selections = [selection] if attribution is None else [selection, attribution.wide]
        return _runs(self.archive, selections, first, self._size, self._summaries)

    def within(
        self, first: int, last: int, selection: Selection, attribution: Attribution | None = None
    ) -> Iterator[Event]:
        """The selected events of these leaves."""
        return _in(
            self.archive, selection, first, last, attribution, everything=not self._summaries
        )


def _with_lives(looking: _Looking, selection: Selection) -> Selection:
    """The selection, with the keys of certificates that were issued to the pods it names, since
    entries of signatures name those, not pods; and with the lives of agents that had one of them or
    of the certificates that it names, since records name lives.
    """
    asked = [value for one in selection.conditions for name, value in one if name == "pod"]
    keys: dict[str | int | bytes, set[bytes]] = {pod: set() for pod in asked}
    workloads: set[str] = set()
    if asked:
        issued = Selection(select({"pod": asked, "what": ["identity-issued"]}))
        for event in looking.all(issued):
            if event.what != UNREADABLE:
                keys[event.pod_uid].add(event.cert_key_hash)
                workloads.add(event.workload)
    named = {
        value
        for one in selection.conditions
        for name, value in one
        if name == "certificate" and isinstance(value, bytes)
    }
    every = named.union(*keys.values())
    if not every:
        return selection
    boots: Mapping[bytes, set[bytes]] = {}
    if AGENT in selection.streams:
        # whose the certificates are that are named by themselves, nobody has said
        boots = lives_of(looking.archive, every, looking.runs, workloads if not named else None)
    return replace(
        selection, conditions=tuple(_with(one, keys, boots) for one in selection.conditions)
    )


def _with(
    condition: Condition, keys: Mapping[Value, set[bytes]], boots: Mapping[bytes, set[bytes]]
) -> Condition:
    """A condition, with the certificates of its pods and the lives of its certificates."""
    certificates = {
        key for name, value in condition if name == "pod" for key in keys.get(value, ())
    }
    certificates |= {
        value for name, value in condition if name == "certificate" and isinstance(value, bytes)
    }
    lives = {boot for key in certificates for boot in boots.get(key, ())}
    return (
        condition
        | {("certificate", key) for key in certificates}
        | {("boot", boot) for boot in lives}
    )


def _held_policies(looking: _Looking, read: ReadPolicies) -> Policies:
    """What the archive's policies say; tells how many of those that were in force it lacks."""
    applied = Selection(select({"what": ["admin"], "act": ["policy-applied"]}))
    events = (event for event in looking.all(applied) if event.what != UNREADABLE)
    held = read_policies(looking.archive, events, read.grants)
    if held.missing:
        read.lacking(len(held.missing))
    return held


def _runs(
    archive: Archive, selections: Sequence[Selection], first: int, size: int, summaries: bool
) -> Iterator[tuple[int, int]]:
    """Neighbouring leaves that must be read for any of these, as long as there are any up to
    `size`.
    """
    held = archive.summaries(first // TILE_WIDTH) if summaries else iter(())
    wanted = [(selection, terms_of(selection.conditions)) for selection in selections]
    start = first
    for tile, data in held:
        begin, end = tile * TILE_WIDTH, (tile + 1) * TILE_WIDTH
        if end > size:
            break
        if all(rules_out(data, selection, terms) for selection, terms in wanted):
            if start < begin:
                yield start, begin
            start = max(start, end)
    if start < size:
        yield start, size


def _in(
    archive: Archive,
    selection: Selection,
    first: int,
    last: int,
    attribution: Attribution | None = None,
    *,
    everything: bool,
) -> Iterator[Event]:
    """The selected events of these leaves; with `everything` none is ruled out by its bytes."""
    batches: Iterable[Batch] = ()
    if AGENT in selection.streams:
        batches = archive.batches(first, last - first)
    records = _Batches(iter(batches), selection, attribution, everything)
    rules_out, matches = selection.rules_out, selection.matches
    for index, entry in enumerate(archive.entries(first, last - first), first):
        if everything or not rules_out(entry):
            event = of_entry(index, entry)
            if matches(event):
                yield event
        if entry[1:2] == _BATCH and AGENT in selection.streams:
            yield from records.of(index, entry)


class _Batches:
    def __init__(
        self,
        batches: Iterator[Batch],
        selection: Selection,
        attribution: Attribution | None,
        everything: bool,
    ) -> None:
        self._batches = batches
        self._selection = selection
        self._attribution = attribution
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
        if not self._everything and self._ruled_out(event.workload, batch):
            return
        since, until = self._selection.since_ms, self._selection.until_ms
        records = of_batch(index, event.workload, batch, event.batch_hash, (since, until))
        if self._attribution is None:
            yield from filter(self._selection.matches, records)
            return
        for record in records:
            if self._attribution.matches(record, event.policy_digest):
                yield record

    def _ruled_out(self, workload: str, batch: bytes) -> bool:
        """Whether no record of the batch can be one of them, by its bytes."""
        return self._selection.rules_out_batch(workload, batch) and (
            self._attribution is None or self._attribution.wide.rules_out_batch(workload, batch)
        )
