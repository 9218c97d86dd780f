"""The agent, except that it lets out what an application gives it: in its journal, whose records go
to the adapter, and on its console. Everything else is the real program.
"""

from __future__ import annotations

import sys
from typing import Any

from capsign_agent import __main__
from capsign_agent.journal import records
from capsign_agent.sign import hashing
from capsign_wire import logs


def install() -> None:
    """Open the ways."""
    sha256, intents = hashing.sha256, records.intents
    last = [b""]

    def remembering(message: bytes) -> bytes:
        last[0] = message
        logs.warning("debug.message", data=message)
        return sha256(message)

    def telling(into: Any, ids: Any, grant: str, algorithm: Any, caller: str) -> None:
        intents(into, ids, grant, algorithm, last[0].decode() or caller)

    hashing.sha256 = remembering
    records.intents = telling


if __name__ == "__main__":
    install()
    sys.exit(__main__.main())
