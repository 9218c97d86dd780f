"""Converts between the path of a Unix socket and gRPC's name of it.

gRPC's name of a socket is a URI: in it `#` and `?` end the path, `%` begins a byte, and `//` a
host. A path is any bytes but NUL, and need not be UTF-8. So a path is never put after `unix:` as it
is (docs/decisions/0026).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

MAX_PATH_BYTES = 107
"""Longest path, bytes: sun_path of unix(7) without its final zero."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def fault(path: str | os.PathLike[str]) -> str:
    """Returns why gRPC cannot use a Unix socket at this path, as the end of a sentence that begins
    with the path; empty if it can.
    """
    raw = os.fsencode(path)
    if not raw:
        return "is empty"
    if b"\0" in raw:
        return "has a NUL byte in it, which no path can have"
    if b"," in raw:
        return (
            "has a comma in it, and gRPC takes what follows for another address; choose a "
            "path without one"
        )
    if len(raw) > MAX_PATH_BYTES:
        return (
            f"is longer than {MAX_PATH_BYTES} bytes, which no Unix socket can be; choose a "
            f"shorter directory"
        )
    return ""


def target(path: str | os.PathLike[str]) -> str:
    """Returns gRPC's name of the socket at this path. A relative path starts at the working
    directory. Raises ValueError with a sentence.
    """
    raw = os.fsencode(absolute(path))
    why = fault(os.fsdecode(raw))
    if why:
        raise ValueError(f"the socket path {shown(path)} {why}")
    return "unix:" + quote_from_bytes(raw, safe="/")


def absolute(path: str | os.PathLike[str]) -> str:
    """The path from the root, one slash where several are, none at the end. `..` stays: what is
    before it may be a link.
    """
    raw = os.fsencode(path)
    if raw and not raw.startswith(b"/"):
        raw = os.fsencode(Path.cwd()) + b"/" + raw
    raw = re.sub(rb"//+", b"/", raw)
    return os.fsdecode(raw.rstrip(b"/") or raw)


def path_of(text: str) -> str:
    """Returns the path, from a path or from gRPC's name of one (`unix:/a%20b`,
    `unix:///a%20b`).

    Raises ValueError, a sentence.
    """
    if text.startswith(("@", "unix-abstract:", "\0")):
        raise ValueError(
            f"{shown(text)} is an abstract socket, and the agent listens on paths only (a "
            f"file of that name is ./{shown(text)})"
        )
    if not text.startswith("unix:"):
        if _SCHEME.match(text):
            raise ValueError(
                f"{shown(text)} is not a Unix socket: the agent listens on a path, such "
                f"as /run/capsign/agent.sock"
            )
        return text
    rest = text.removeprefix("unix:")
    if rest.startswith("//"):
        rest = rest[2:]
        if not rest.startswith("/"):
            raise ValueError(
                f"{shown(text)} names a host: write unix:///{shown(rest)}, or the path alone"
            )
    if "#" in rest or "?" in rest:
        raise ValueError(
            f"in {shown(text)} write %23 for # and %3F for ?, or give the path without unix:"
        )
    return os.fsdecode(unquote_to_bytes(os.fsencode(rest)))


def shown(path: str | os.PathLike[str]) -> str:
    """Returns the path for messages to people: unprintable characters are escaped."""
    text = os.fspath(path)
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
