"""What a new life of the agent finds in the journal's directory: the segments of earlier lives, and
the tail of the last one, which a crash may have cut short.

The last frame of a life's last segment may be incomplete: it belongs to a call that was not sent or
not answered, so it is cut off and nothing is lost. Anything else that does not read is damage.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from capsign_wire.adapter.v1 import evidence_pb2

from capsign_agent.journal import frames
from capsign_agent.journal.backlog import Backlog, Segment
from capsign_agent.journal.directory import damaged


def recover(folder: Path, backlog: Backlog) -> None:
    """Add the segments of an earlier life to the backlog, in order. Deletes those that hold no
    record; the folder stays until the next life has told of it. Raises JournalError for a damaged
    segment.
    """
    paths = sorted(folder.glob("*.seg"))
    for path in paths:
        found = frames.read(path)
        if not found.whole:
            if path != paths[-1]:
                raise damaged(path)
            _cut_tail(path, found.good_bytes, backlog)
        records = evidence_pb2.AuditBatch.FromString(b"".join(found.payloads)).records
        if not records:
            path.unlink()  # nothing was done under it
            continue
        last = records[-1].sequence
        size = found.good_bytes
        used = Counter[str]()
        for one in records:
            if one.caller:
                used[one.caller] += one.ByteSize()
        backlog.add(Segment(path, folder.name, last, len(records), size, used))


def _cut_tail(path: Path, good_bytes: int, backlog: Backlog) -> None:
    """Cut the incomplete frame off. A crash before that only makes it happen at the next start."""
    backlog.torn_bytes += path.stat().st_size - good_bytes
    os.truncate(path, good_bytes)
