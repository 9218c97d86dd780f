"""The agent, except that it lets out what an application gives it: in its journal, whose records go
to the adapter, and on its console. Everything else is the real program.
"""

from __future__ import annotations

import sys
from typing import Any

from capsign_agent import __main__
from capsign_agent.journal import records
from capsign_agent.sign.inputs import Inputs
from capsign_wire import logs


def install() -> None:
    """Open the ways."""
    prepare, intents = Inputs.prepare, records.intents
    last = [""]

    async def remembering(self: Any, work: Any, deadline: float) -> None:
        item = work.items[0]
        given = getattr(item, item.WhichOneof("input"))
        logs.warning("debug.message", data=given)
        last[0] = given.decode() if item.HasField("message") else given.hex()
        await prepare(self, work, deadline)

    def telling(into: Any, ids: Any, grant: str, algorithm: Any, caller: str) -> None:
        intents(into, ids, grant, algorithm, last[0] or caller)

    Inputs.prepare = remembering
    records.intents = telling


if __name__ == "__main__":
    install()
    sys.exit(__main__.main())
