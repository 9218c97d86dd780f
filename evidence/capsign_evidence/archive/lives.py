"""Which lives of agents had a certificate, by what they say themselves: the first record with a
certificate of a life, and each renewal, name its key.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Protocol

from capsign_evidence.archive.entry_events import of_entry
from capsign_evidence.archive.events import AGENT, UNREADABLE
from capsign_evidence.archive.interface import Archive
from capsign_evidence.archive.record_events import parsed_batch
from capsign_evidence.archive.selection import Selection, Value, select

STEP = 64 * 256
"""Leaves whose entries and batches are read together."""


class Runs(Protocol):
    """Which leaves must be read for a selection."""

    def __call__(self, first: int, selection: Selection) -> Iterator[tuple[int, int]]: ...


def lives_of(
    archive: Archive, keys: Collection[bytes], runs: Runs, workloads: Collection[str] | None
) -> Mapping[bytes, set[bytes]]:
    """The lives of each certificate key, by their boot ids. `workloads`: whose they can be, None
    where nobody knows. A batch whose bytes are not those that its entry names tells nothing here;
    a query shows it as unreadable. Raises ArchiveError.
    """
    wanted: dict[str, list[Value]] = {"what": ["identity-issued", "identity-renewed"]}
    if workloads is not None:
        wanted["workload"] = [*workloads]
    telling = Selection(select(wanted), streams=frozenset({AGENT}))
    found: dict[bytes, set[bytes]] = {}
    for start, end in runs(archive.first, telling):
        for at in range(start, end, STEP):
            for index, _, batch in archive.batches(at, min(STEP, end - at)):
                # of most batches a look at the bytes is enough
                if not any(key in batch for key in keys):
                    continue
                entry = next(archive.entries(index, 1), b"")
                event = of_entry(index, entry)
                parsed = parsed_batch(batch, event.batch_hash)
                if event.what == UNREADABLE or parsed is None:
                    continue
                if workloads is not None and event.workload not in workloads:
                    continue
                for record in parsed.records:
                    if record.certificate_key in keys:
                        found.setdefault(record.certificate_key, set()).add(parsed.boot_id)
    return found
