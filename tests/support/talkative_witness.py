"""The witness, except that it tells its console what it is asked. Everything else is the real
program.
"""

from __future__ import annotations

from typing import Any

from capsign_wire import logs
from capsign_witness import __main__
from capsign_witness.witness import Witness


def install() -> None:
    """Open the way."""
    add_checkpoint = Witness.add_checkpoint

    def telling(self: Any, body: bytes) -> Any:
        logs.warning("debug.body", data=body.decode("latin-1"))
        return add_checkpoint(self, body)

    Witness.add_checkpoint = telling


if __name__ == "__main__":
    install()
    __main__.main()
