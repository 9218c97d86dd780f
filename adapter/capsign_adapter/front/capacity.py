"""How many connections and requests fit into the process's file descriptors and memory, computed
at the start.

The bounds must be reached before the system's own: an adapter that cannot open another file cannot
read its store, and one that the kernel kills for its memory loses the calls of all callers.
"""

from __future__ import annotations

import resource
from typing import NamedTuple

from capsign_wire import bounds
from capsign_wire.settings import SettingsError

MIB = 1024 * 1024

OWN_DESCRIPTORS = 192
"""Descriptors for files, token, cluster, telemetry and verifiers, and those that libraries keep
open.
"""

ENOUGH_DESCRIPTORS = 65_536
"""Descriptors to ask the system for: more than all listeners can use. Container runtimes often
allow a billion; libraries of HSMs then make tables of that size, or close each of them one by one.
"""

DESCRIPTORS_OF_A_CALL = 2
"""A thread that reads the store may have two connections of its own: database and log."""

HANDSHAKING = 4096
"""Connections beside those of agents. Strangers cannot be told from agents before the end of their
handshake, for which they have five seconds: a bound that a few strangers can reach would keep
agents out.
"""

OF_A_SMALL_LISTENER = 1024
"""Most connections of each of the listeners for people, for enrolment and for probes."""

OWN_MEMORY = 160 * MIB
"""Bytes that an idle adapter takes, and those it needs to work, without the requests it holds."""

_NO_LIMIT = 1 << 60
"""Number of descriptors where the system has no limit."""


class Connections(NamedTuple):
    """Most connections of each listener."""

    main: int
    admin: int
    enrolment: int
    health: int


def connections(descriptors: int, max_calls: int) -> Connections:
    """Divide the descriptors that the process itself does not need among the listeners. Each has
    its own part, so that none can take those of another.

    An agent has a connection for each signing stream and uses it for its other calls too. So the
    main listener has two for each of `max_calls` (one may be broken and not yet known to be), and
    HANDSHAKING more.
    """
    kept = min(OWN_DESCRIPTORS + DESCRIPTORS_OF_A_CALL * max_calls, descriptors // 2)
    left = descriptors - kept
    small = min(OF_A_SMALL_LISTENER, max(8, left // 8))
    return Connections(min(2 * max_calls + HANDSHAKING, left - 3 * small), small, small, small)


def raise_descriptors() -> int:
    """Raise the soft limit on file descriptors as far as the system allows, to ENOUGH_DESCRIPTORS
    at most. Returns how many descriptors there are now.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _NO_LIMIT
    wanted = ENOUGH_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_DESCRIPTORS)
    if soft >= wanted:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError):
        return soft
    return wanted


PUBLIC_CONNECTION = 736 * 1024
"""Bytes that a connection of the listener for verifiers may take: asyncio's TLS keeps 256 KiB of
what comes in and as much of what goes out, OpenSSL twice 17 KiB; the rest is for an answer.
"""


def demand_memory(limit: int | None, max_calls: int, message_bytes: int, public: int = 0) -> None:
    """Raises SettingsError if `max_calls` requests of `message_bytes` each, and as many connections
    of the listener for verifiers as `public`, do not fit into the memory limit, in bytes. None is
    no limit.
    """
    taken = max_calls * bounds.taken_bytes(message_bytes) + public * PUBLIC_CONNECTION
    if limit is None or OWN_MEMORY + taken <= limit:
        return
    needed = -(-(OWN_MEMORY + taken) // MIB)
    raise SettingsError(
        f"The key `listen.streams` is {max_calls}, and each may hold a request of "
        f"{bounds.taken_bytes(message_bytes)} bytes "
        f"(`listen.message_bytes`, and what it takes to refuse more): "
        f"with what the adapter needs itself that is {needed} "
        f"MiB, and its memory "
        f"is limited to {limit // MIB} MiB. Raise that limit, or lower `listen.streams`.",
        key="listen.streams",
    )
