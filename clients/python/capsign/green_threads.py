"""Support for gevent, and the refusal of eventlet: libraries that replace Python's threads.

A replaced thread that waits inside gRPC's C code blocks all others of its hub, so a call would
never return. gRPC can wait in gevent's way once it is told to; it has no support for eventlet.
"""

from __future__ import annotations

import sys
from typing import Any

_told_grpc = False


def patched() -> str:
    """The library that has replaced Python's threads: "gevent", "eventlet", or empty."""
    gevent: Any = sys.modules.get("gevent.monkey")
    if gevent is not None and gevent.is_module_patched("threading"):
        return "gevent"
    eventlet: Any = sys.modules.get("eventlet.patcher")
    if eventlet is not None and eventlet.is_monkey_patched("thread"):
        return "eventlet"
    return ""


def prepare() -> str:
    """Prepare gRPC before a channel is made; returns what `patched` returns. Raises RuntimeError if
    calls would never return.
    """
    global _told_grpc
    found = patched()
    if found == "eventlet":
        raise RuntimeError(
            "eventlet has replaced Python's threads, and gRPC, which capsign speaks, "
            "cannot wait in eventlet's way: a call would"
            " never return. Sign in a process without "
            "eventlet.monkey_patch(thread=True), or use gevent."
        )
    if found == "gevent" and not _told_grpc:
        from grpc.experimental.gevent import init_gevent

        init_gevent()
        _told_grpc = True
    return found


def refuse_asyncio() -> None:
    """Raises RuntimeError if Python's threads were replaced: gRPC for asyncio needs a real one."""
    found = patched()
    if found:
        raise RuntimeError(
            f"{found} has replaced Python's threads, and an event loop of asyncio cannot "
            f"wait for gRPC among them: a call would"
            f" never return. Use "
            f"capsign.Signer{' there' if found == 'gevent' else ' in a process without eventlet'}."
        )
