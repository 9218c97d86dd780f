"""The path of the agent's socket, from an argument or the variable CAPSIGN_SOCKET."""

from __future__ import annotations

import os

from capsign_wire import unix_socket

VARIABLE = "CAPSIGN_SOCKET"


def socket_path(socket: str | os.PathLike[str] | None) -> str:
    """The absolute path of the socket, from a path or a `unix:` address; from CAPSIGN_SOCKET if
    none is given.

    Raises ValueError if neither is given, the address is not a Unix socket, or the path cannot be
    one.
    """
    text = os.fsdecode(socket) if socket is not None else os.environ.get(VARIABLE, "")
    if not text.strip():
        raise ValueError(
            f"no socket: give Signer(socket=...) or set {VARIABLE} to the path of the "
            f"agent's socket"
        )
    named = "the socket" if socket is not None else VARIABLE
    stray = _stray(text)
    if stray and not os.path.lexists(unix_socket.absolute(text)):
        raise ValueError(f"{named} is {text!r}: it {stray}; write the path alone")
    path = unix_socket.absolute(unix_socket.path_of(text))
    unix_socket.target(path)
    return path


def socket_target(socket: str | os.PathLike[str] | None) -> str:
    """gRPC's name for that socket. Raises ValueError."""
    return unix_socket.target(socket_path(socket))


def _stray(text: str) -> str:
    """What is around a path without being part of it, in words: files of variables may keep quotes,
    and files end in a newline.
    """
    if any(one in text for one in "\n\r\t"):
        return "has a line break or a tab in it"
    if text != text.strip():
        return "begins or ends with a blank"
    if text[0] in "'\"" or text[-1] in "'\"":
        return "has quotes around it, which no shell took away"
    return ""
