"""Both streams of an archive as events, in reading order: that of the log, and within a batch that
of its records.
"""

from __future__ import annotations

from collections.abc import Iterator

from capsign_evidence.archive.entry_events import of_entry
from capsign_evidence.archive.events import AGENT, AGENT_BATCH, UNREADABLE, Event
from capsign_evidence.archive.interface import ALL, Archive
from capsign_evidence.archive.record_events import of_batch


def events(archive: Archive, first: int = 0, count: int = ALL) -> Iterator[Event]:
    """The events of these leaves: each entry, and behind the entry of a batch its records. A batch
    that the archive does not hold is an unreadable event. Raises ArchiveError.
    """
    batches = archive.batches(first, count)
    held = next(batches, None)
    for index, entry in enumerate(archive.entries(first, count), first):
        event = of_entry(index, entry)
        yield event
        while held is not None and held[0] < index:
            held = next(batches, None)
        if event.what != AGENT_BATCH:
            continue
        if held is None or held[0] != index:
            yield Event(
                index=index,
                time_ms=event.time_ms,
                stream=AGENT,
                what=UNREADABLE,
                workload=event.workload,
                boot_id=event.boot_id,
                sequence=event.sequence,
                last_sequence=event.last_sequence,
            )
            continue
        # whose they are its entry says, which the log's root covers, and no column of a store
        yield from of_batch(index, event.workload, held[2], event.batch_hash)
