"""Threads that are none: what gevent and eventlet put in the place of `threading`.

A patched thread that waits inside gRPC's C code stops every other one of its hub, so a call would
never return. gRPC knows gevent and can wait in its way once it is told so; of eventlet it knows
nothing.
"""

from __future__ import annotations

import sys
from typing import Any

_told_grpc = False


def patched() -> str:
    """Which library put its own threads in place of the real ones: "gevent", "eventlet", or
    none.
    """
    gevent: Any = sys.modules.get("gevent.monkey")
    if gevent is not None and gevent.is_module_patched("threading"):
        return "gevent"
    eventlet: Any = sys.modules.get("eventlet.patcher")
    if eventlet is not None and eventlet.is_monkey_patched("thread"):
        return "eventlet"
    return ""


def prepare() -> str:
    """Before a channel is made: see that calls on it can return. Gives what `patched` gives. Raises
    RuntimeError if not.
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
    """gRPC for asyncio has a real thread at its heart. Raises RuntimeError where there are none."""
    found = patched()
    if found:
        raise RuntimeError(
            f"{found} has replaced Python's threads, and an event loop of asyncio cannot "
            f"wait for gRPC among them: a call would"
            f" never return. Use "
            f"capsign.Signer{' there' if found == 'gevent' else ' in a process without eventlet'}."
        )
