"""Where the agent listens."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "CAPSIGN_SOCKET"
MAX_PATH_BYTES = 107
"""sun_path holds 108 bytes with its terminator."""


def socket_target(socket: str | os.PathLike[str] | None) -> str:
    """The gRPC target `unix:PATH` for a path or a `unix:` address; from CAPSIGN_SOCKET if none is given.

    Raises ValueError if neither is given, the address is not a Unix socket, or the path cannot be a socket's.
    """
    text = os.fspath(socket) if socket is not None else os.environ.get(VARIABLE, "")
    if not text:
        raise ValueError(f"no socket: give Signer(socket=...) or set {VARIABLE} to the path of the agent's socket")
    path = text.removeprefix("unix://").removeprefix("unix:")
    if "://" in text and not text.startswith("unix:"):
        raise ValueError(f"{text!r} is not a Unix socket: the agent listens on a path, such as /run/capsign/agent.sock")
    path = str(Path(path).absolute())
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise ValueError(f"the socket path is longer than {MAX_PATH_BYTES} bytes, which no Unix socket can be")
    return f"unix:{path}"
