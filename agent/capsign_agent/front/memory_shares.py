"""How an agent shares the memory that the kernel leaves it, worked out at the start. Pure.

Bounds of single things are none where all of them together are more than the limit: the kernel ends
the agent, and with it signing in every container of the pod. So what sockets may have follows the
limit of the control group. The configuration may ask for less.
"""

from __future__ import annotations

from typing import NamedTuple

from capsign_wire import bounds

from capsign_agent.front.memory_budget import HEAVY_BYTES
from capsign_agent.front.read_slots import READ_SLOTS, SHARED_SLOTS

MIB = 1024 * 1024

OWN_BYTES = 40 * MIB
"""What an agent takes before anybody has asked it anything, and what it needs to work: 24 MiB,
measured, and the rest.
"""

CONNECTION_BYTES = 14 * 1024
"""What a connection takes on which nothing is asked, measured."""

PART_OF_JOURNAL, PART_OF_CONNECTIONS, PART_OF_UNSEEN, PART_OF_READ_SLOTS = 8, 16, 12, 3
"""One of so many parts of the limit: the journal, which in a pod is kept in memory; connections;
RPCs that nobody has looked at; and, of what is left, read slots.
"""

LEAST_CALL_BYTES, LEAST_CONNECTIONS = 2 * MIB, 16
"""Of each socket, whatever the limit is."""


STREAMS, LEAST_STREAMS, MEMORY_OF_A_STREAM = 100, 16, 4 * MIB
"""RPCs at once on a connection, the fewest, and how much of the limit there is for each. More wait
in their client.
"""

UNSEEN, LEAST_UNSEEN, UNSEEN_BYTES = 3072, 64, 20 * 1024
"""RPCs of a socket that gRPC has taken, in threads of its own, and this process has not looked at;
the fewest; and what each takes beside its window: 12 KiB, measured, and metadata. gRPC cancels
those above, without a word of ours.
"""

WINDOW, SMALL_WINDOW, SMALL = 16 * 1024, 4 * 1024, 256 * MIB
"""What a stream may hold while nobody reads it, and where the limit is below the third."""


class MemoryShares(NamedTuple):
    """What all sockets together may have."""

    shared_read_slots: int
    """Beside the one that each socket has of its own."""
    call_bytes: int
    connections: int | None
    """None: whatever open files allow."""
    streams: int
    """RPCs at once on a connection."""
    window: int
    unseen: int
    """RPCs of one socket that nobody has looked at yet."""
    needed: int
    """Bytes that the process may take, bounds and all; above the limit only where the least that
    sockets need does not fit.
    """


def share(limit: int | None, sockets: int, call_bytes: int, journal_bytes: int) -> MemoryShares:
    """`limit`: bytes, or None without one. `call_bytes`, `journal_bytes`: what the configuration
    allows.
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
