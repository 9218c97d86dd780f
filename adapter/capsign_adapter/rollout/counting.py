"""Counts what the log says of a rollout's step, a part at a time, and keeps it in the store."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Protocol

from capsign_adapter.decide.rollout_samples import count
from capsign_adapter.model.rollouts import RolloutRow
from capsign_adapter.store.interfaces.control import ControlState
from capsign_adapter.store.interfaces.evidence import AuditBatches, EvidenceLog
from capsign_adapter.store.interfaces.rollouts import Rollouts

MOST_ENTRIES = 4096
"""Entries that one look counts."""

MOST_BATCHES = 16
"""Batches of agents that one look counts; each is at most a mebibyte."""


class CountedStore(ControlState, EvidenceLog, AuditBatches, Rollouts, Protocol):
    """What is asked of the store here."""


def counted(
    store: CountedStore, row: RolloutRow, grants: Collection[str]
) -> tuple[RolloutRow, bool]:
    """The row with what was counted now, and whether there is more to count. Where another replica
    counts, it is the row as it was.
    """
    first, size = row.figures.through_leaf, store.control().tree_size
    end = min(size, first + MOST_ENTRIES)
    found = store.audit_batches(first_leaf=first, limit=MOST_BATCHES, end_leaf=end)
    if len(found) == MOST_BATCHES:
        end = min(end, found[-1][0] + 1)
    if end <= first:
        return row, False
    batches = {index: (workload, batch) for index, workload, batch in found if index < end}
    figures = count(row, grants, store.entries(first, end - first), batches)
    kept = store.tally_rollout(row, figures)
    return (replace(row, figures=figures) if kept else row), end < size
