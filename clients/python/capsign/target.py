"""Where the agent listens."""

from __future__ import annotations

import os

from capsign_wire import unix_socket

VARIABLE = "CAPSIGN_SOCKET"


def socket_target(socket: str | os.PathLike[str] | None) -> str:
    """gRPC's name of the socket, for its path or a `unix:` address; from CAPSIGN_SOCKET if none is given.

    Raises ValueError if neither is given, the address is not a Unix socket, or the path cannot be a socket's.
    """
    text = os.fsdecode(socket) if socket is not None else os.environ.get(VARIABLE, "")
    if not text:
        raise ValueError(f"no socket: give Signer(socket=...) or set {VARIABLE} to the path of the agent's socket")
    return unix_socket.target(unix_socket.path_of(text))
