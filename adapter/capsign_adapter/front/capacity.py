"""What all listeners together may take of the process's memory and file descriptors, worked out at
the start.

A bound that the system reaches first is none: an adapter that cannot open a file any more cannot
read its store either, and one that the kernel ends for its memory takes everybody's calls with it.
"""

from __future__ import annotations

import resource
from typing import NamedTuple

from capsign_wire import bounds
from capsign_wire.settings import SettingsError

MIB = 1024 * 1024

OWN_DESCRIPTORS = 128
"""Files, token, cluster, telemetry, and what each library keeps open."""

ENOUGH_DESCRIPTORS = 65_536
"""More than all listeners can use. Container runtimes often allow a billion, and libraries of HSMs
make tables of as many entries, or close each of them one by one.
"""

DESCRIPTORS_OF_A_PLACE = 2
"""A thread that reads the store may have a connection of its own: database and log."""

SHAKING_HANDS = 4096
"""Connections beside those of agents. Strangers cannot be told from agents before their
handshake, which they have five seconds for: a bound that a few of them reach would keep the
agents out."""

OF_A_SMALL_LISTENER = 1024
"""Most connections of each of the listeners for people, for enrolment and for probes."""

OWN_MEMORY = 160 * MIB
"""What an adapter takes before anybody has sent it anything, and what it needs to work."""

_NO_LIMIT = 1 << 60
"""Stands for as many files as one likes."""


class Connections(NamedTuple):
    """Most connections of each listener."""

    main: int
    admin: int
    enrolment: int
    health: int


def connections(descriptors: int, places: int) -> Connections:
    """How the descriptors that are not kept for the process itself are shared: each listener has
    its own, so that none can take those of another.

    An agent has a connection for each signing stream and uses the same ones for the rest, so there
    is one for each place, another for each while a connection that broke is not known to have, and
    room for all others.
    """
    kept = min(OWN_DESCRIPTORS + DESCRIPTORS_OF_A_PLACE * places, descriptors // 2)
    left = descriptors - kept
    small = min(OF_A_SMALL_LISTENER, max(8, left // 8))
    return Connections(min(2 * places + SHAKING_HANDS, left - 3 * small), small, small, small)


def raise_descriptors() -> int:
    """Take as many file descriptors as the system allows and an adapter can use; how many that
    are.
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


def demand_memory(limit: int | None, places: int, message_bytes: int) -> None:
    """Raises SettingsError if requests that are under way on all places would not fit into the
    memory limit."""
    taken = places * bounds.taken_bytes(message_bytes)
    if limit is None or OWN_MEMORY + taken <= limit:
        return
    needed = -(-(OWN_MEMORY + taken) // MIB)
    raise SettingsError(
        f"The key `listen.streams` is {places}, and each may hold a request of "
        f"{bounds.taken_bytes(message_bytes)} bytes "
        f"(`listen.message_bytes`, and what it takes to refuse more): "
        f"with what the adapter needs itself that is {needed} "
        f"MiB, and its memory "
        f"is limited to {limit // MIB} MiB. Raise that limit, or lower `listen.streams`.",
        key="listen.streams",
    )
