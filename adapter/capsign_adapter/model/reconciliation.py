"""How far the two streams have been held against each other, and which incidents stand."""

from __future__ import annotations

from dataclasses import dataclass

from capsign_evidence.reconcile.incidents import Change, Incident


@dataclass(frozen=True, slots=True)
class IncidentRow:
    """An incident that stands; `leaf_index` is the entry that says that it was found."""

    incident: Incident
    leaf_index: int


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What the store has of it. `revision` counts the writes of it, `position` is the next entry to
    read, `state` what was remembered there; empty at the very beginning.
    """

    revision: int
    position: int
    state: bytes
    rows: tuple[IncidentRow, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """What a replica came to: `position` and `state` as above, each change with its entry, and the
    incidents that are about more by now.
    """

    position: int
    state: bytes
    changes: tuple[tuple[Change, bytes], ...] = ()
    grown: tuple[Incident, ...] = ()
