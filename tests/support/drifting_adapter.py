"""The adapter, except that it looks for drift twice a second, and kills itself (SIGKILL) at a step
between finding a difference and telling of it.

CAPSIGN_TEST_CRASH is the step; where it is empty the adapter lives.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from capsign_adapter import __main__
from capsign_adapter.assembly import drift as assembled
from capsign_adapter.store import drift, log, relational_drift

STEPS = ("found", "sequenced", "settled")


def install(crash: str) -> None:
    """Put the steps around what the real program does."""
    settle, sequence, settled = drift.settle, log.sequence, relational_drift.RelationalDrift
    whole = settled.settle_drift
    inside = [False]

    def at(step: str) -> None:
        if step == crash:
            os.kill(os.getpid(), signal.SIGKILL)

    def sequenced(*arguments: Any, **named: Any) -> Any:
        result = sequence(*arguments, **named)
        if inside[0]:
            at("sequenced")
        return result

    def within(*arguments: Any) -> Any:
        inside[0] = True
        try:
            return settle(*arguments)
        finally:
            inside[0] = False

    def around(*arguments: Any) -> Any:
        at("found")
        result = whole(*arguments)
        at("settled")
        return result

    log.sequence = sequenced
    drift.settle = within
    settled.settle_drift = around


def main() -> None:
    """The adapter's entry point."""
    assembled.LOOK_S = 0.5
    install(os.environ.get("CAPSIGN_TEST_CRASH", ""))
    __main__.main()


if __name__ == "__main__":
    main()
