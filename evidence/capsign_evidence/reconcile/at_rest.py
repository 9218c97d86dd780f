"""Holds the two streams of an archive against each other, from its first entry to its last."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from capsign_evidence.archive.interface import Archive, Batch
from capsign_evidence.incident_leaf import IncidentLeaf, IncidentState
from capsign_evidence.leaf_fields import LeafError
from capsign_evidence.leaf_kinds import Kind
from capsign_evidence.leaf_reader import decode
from capsign_evidence.reconcile import leaves
from capsign_evidence.reconcile.incidents import Incident, IncidentKey, signature_without_leaf
from capsign_evidence.reconcile.reconciler import Reconciler
from capsign_evidence.reconcile.state import State
from capsign_evidence.reconcile.timing import Timing

EVERY = 8192
"""Entries between two words about how far it is."""

MAX_HANDED_IN = 1_000_000
"""Most signatures that are looked for in one reading; they are kept in memory."""


@dataclass(frozen=True, slots=True)
class Findings:
    """`standing` is what stands at the end, by the rules or by what the adapter wrote into the log
    while it ran (`told`: only by that). `through` entries were read, the last of `until_ms`;
    `unreadable` are indexes of entries that are none. `untold` incidents were found beside too many
    others, `unjudged` signatures forgotten beside too many others: of them nothing is said.
    """

    standing: tuple[Incident, ...]
    told: frozenset[IncidentKey]
    first: int
    through: int
    until_ms: int
    unreadable: tuple[int, ...]
    untold: int = 0
    unjudged: int = 0


def reconcile(
    archive: Archive,
    timing: Timing,
    handed_in: Iterable[tuple[bytes, ...]] = (),
    tell: Callable[[int, int], None] = lambda *_: None,
) -> Findings:
    """Reads all of it, in bounded memory. `handed_in`: of each signature that relying parties hold
    the SHA-256 of each form that it may have; one that the log has is enough, and the first is what
    an incident names. `tell` hears now and then how many entries of how many are read. Raises
    ArchiveError.

    A silent end of the archive says nothing: its time ends with its last entry.
    """
    first, size = archive.first, archive.size
    held = set(handed_in)
    unseen = {form for one in held for form in one}
    reconciler = Reconciler(timing, _entry_of(archive), State(position=first, began=first))
    written: dict[IncidentKey, Incident] = {}
    unreadable: list[int] = []
    for index, entry, batch in _both(archive, first, size):
        try:
            reconciler.entry(entry, batch)
            if unseen and leaves.kind_of(entry) in leaves.SIGNED:
                unseen.difference_update(leaves.signed(entry).hashes)
            elif leaves.kind_of(entry) == Kind.INCIDENT:
                _note(written, index, decode(entry))
        except (LeafError, UnicodeDecodeError):
            if len(unreadable) < 1024:
                unreadable.append(index)
        if index % EVERY == 0:
            tell(index - first, size - first)
    reconciler.conclude()
    until_ms = reconciler.state.wall_ms
    standing = {one.key: one for one in reconciler.standing}
    told = written.keys() - standing.keys() - _ended(reconciler)
    standing |= {key: written[key] for key in told}
    without = {one[0] for one in held if unseen.issuperset(one)}
    absent = [signature_without_leaf(one, until_ms) for one in sorted(without)]
    return Findings(
        (*standing.values(), *absent),
        frozenset(told),
        first,
        reconciler.state.position,
        until_ms,
        tuple(unreadable),
        reconciler.untold,
        reconciler.unjudged,
    )


def _both(archive: Archive, first: int, size: int) -> Iterator[tuple[int, bytes, bytes | None]]:
    """Entries, and with each the batch that it is about."""
    batches = archive.batches(first, size - first)
    held: Batch | None = next(batches, None)
    for index, entry in enumerate(archive.entries(first, size - first), first):
        while held is not None and held[0] < index:
            held = next(batches, None)
        yield index, entry, held[2] if held is not None and held[0] == index else None


def _entry_of(archive: Archive) -> Callable[[int], bytes | None]:
    def entry(index: int) -> bytes | None:
        return next(archive.entries(index, 1), None) if index >= archive.first else None

    return entry


def _note(written: dict[IncidentKey, Incident], index: int, leaf: object) -> None:
    if not isinstance(leaf, IncidentLeaf):
        return
    one = Incident(
        leaf.incident,
        leaf.workload,
        leaf.boot_id,
        leaf.digest,
        leaf.intent_id,
        leaf.leaf_index_plus_one,
        leaf.first,
        leaf.last,
        leaf.count,
        leaf.since_ms,
    )
    if leaf.state is IncidentState.FOUND:
        written[one.key] = one
    else:
        written.pop(one.key, None)


def _ended(reconciler: Reconciler) -> set[IncidentKey]:
    """What the rules saw come and go: the adapter, which read later, has not said so yet."""
    changes = reconciler.take_changes()
    return {one.incident.key for one in changes if one.state is IncidentState.ENDED}
