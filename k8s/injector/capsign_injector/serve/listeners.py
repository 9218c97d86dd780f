"""Listening sockets, and how many connections this process can have."""

from __future__ import annotations

import resource
import socket

BACKLOG = 4_096
"""Most completed connections that the kernel queues."""

SPARE_FILES = 128
"""Open files that are kept for everything but connections."""


def listening(host: str | None, port: int) -> socket.socket:
    """A socket that listens at this address. Raises OSError."""
    if host is None and not socket.has_dualstack_ipv6():
        host = "0.0.0.0"  # noqa: S104 - every address was asked for
    if host is None or ":" in host:
        return socket.create_server(
            (host or "::", port),
            family=socket.AF_INET6,
            backlog=BACKLOG,
            dualstack_ipv6=host in {None, "::"},
        )
    return socket.create_server((host, port), backlog=BACKLOG)


def affordable(wanted: int) -> int:
    """How many connections the limit of open files allows, `wanted` at most."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if most == resource.RLIM_INFINITY else max(16, min(wanted, most - SPARE_FILES))
