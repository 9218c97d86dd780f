"""How an agent divides the memory limit of its control group, worked out once at the start. Pure.

Separate bounds are useless if their sum is above the limit: the kernel then kills the agent, and
signing ends in every container of the pod. So all bounds follow from the limit; the configuration
may only lower them.
"""

from __future__ import annotations

from typing import NamedTuple

from capsign_wire import bounds

from capsign_agent.front.memory_budget import HEAVY_BYTES
from capsign_agent.front.read_slots import READ_SLOTS, SHARED_SLOTS

MIB = 1024 * 1024

OWN_BYTES = 40 * MIB
"""Bytes that an agent takes before anybody has called it (24 MiB, measured), and what it needs to
work.
"""

CONNECTION_BYTES = 14 * 1024
"""Bytes of a connection without calls, measured."""

PART_OF_JOURNAL, PART_OF_CONNECTIONS, PART_OF_UNSEEN, PART_OF_READ_SLOTS = 8, 16, 12, 3
"""The limit is divided by these numbers: an eighth for the journal (in a pod it is in memory), a
sixteenth for connections, a twelfth for RPCs that are not looked at yet, a third of the rest for
read slots.
"""

LEAST_CALL_BYTES, LEAST_CONNECTIONS = 2 * MIB, 16
"""The least that each socket gets, whatever the limit is."""


STREAMS, LEAST_STREAMS, MEMORY_OF_A_STREAM = 100, 16, 4 * MIB
"""Concurrent RPCs on a connection: at most, at least, and one for each so many bytes of the limit.
Further RPCs wait in the client.
"""

UNSEEN, LEAST_UNSEEN, UNSEEN_BYTES = 3072, 64, 20 * 1024
"""RPCs of a socket that gRPC's threads have accepted and this process has not looked at: at most,
at least, and bytes of each beside its window (12 KiB, measured, and metadata). gRPC cancels those
above without a reason.
"""

WINDOW, SMALL_WINDOW, SMALL = 16 * 1024, 4 * 1024, 256 * MIB
"""Bytes that a stream may send before anybody reads it; the second where the limit is below the
third.
"""


class MemoryShares(NamedTuple):
    """What all sockets together may have."""

    shared_read_slots: int
    """Read slots beside the one that each socket has of its own."""
    call_bytes: int
    connections: int | None
    """None: as many as open files allow."""
    streams: int
    """Concurrent RPCs on a connection."""
    window: int
    unseen: int
    """RPCs of one socket that gRPC has accepted and nobody has looked at."""
    needed: int
    """Bytes that the process may take if every bound is reached. Above the limit only if the least
    that the sockets need does not fit.
    """


def share(limit: int | None, sockets: int, call_bytes: int, journal_bytes: int) -> MemoryShares:
    """Divide the limit. `limit` is in bytes, None without one; `call_bytes` and `journal_bytes` are
    what the configuration allows.
    """
    message = bounds.taken_bytes(bounds.MAX_MESSAGE_BYTES)
    if limit is None:
        shared = max(SHARED_SLOTS, READ_SLOTS - sockets)
        return MemoryShares(shared, call_bytes, None, STREAMS, WINDOW, UNSEEN, 0)
    own = OWN_BYTES + min(journal_bytes, limit // PART_OF_JOURNAL)
    left = max(0, limit - own)
    affordable = left // PART_OF_READ_SLOTS // message - sockets
    shared = max(1, min(max(SHARED_SLOTS, READ_SLOTS - sockets), affordable))
    connections = max(LEAST_CONNECTIONS * sockets, limit // PART_OF_CONNECTIONS // CONNECTION_BYTES)
    window = WINDOW if limit >= SMALL else SMALL_WINDOW
    unseen = max(LEAST_UNSEEN, limit // PART_OF_UNSEEN // (UNSEEN_BYTES + window) // sockets)
    beside = own + (sockets + shared) * message + HEAVY_BYTES + connections * CONNECTION_BYTES
    beside += sockets * unseen * (UNSEEN_BYTES + window)
    calls = max(LEAST_CALL_BYTES * sockets, min(call_bytes, limit - beside))
    streams = max(LEAST_STREAMS, min(STREAMS, limit // MEMORY_OF_A_STREAM))
    return MemoryShares(shared, calls, connections, streams, window, unseen, beside + calls)
