"""The adapter, except that it kills itself (SIGKILL) at a step of a rollout's beginning or of its
being taken back. CAPSIGN_TEST_CRASH is the step; where it is empty the adapter lives.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from capsign_adapter import __main__
from capsign_adapter.rollout import making
from capsign_adapter.store import log, relational_rollouts, rollouts

STARTING = ("version made", "start sequenced", "started")
"""A version is made; then, in one transaction, the rollout and its entry."""

TAKING_BACK = ("move sequenced", "moved")
"""In one transaction: the rollout's move, that of its version, and their entries."""


def install(crash: str) -> None:
    """Put the steps around what the real program does."""
    inside = [""]

    def at(step: str) -> None:
        if step == crash:
            os.kill(os.getpid(), signal.SIGKILL)

    def within(act: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            inside[0] = act
            try:
                return real(*arguments)
            finally:
                inside[0] = ""

        return call

    def after(step: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            result = real(*arguments, **named)
            at(step)
            return result

        return call

    sequence = log.sequence

    def sequenced(*arguments: Any, **named: Any) -> Any:
        result = sequence(*arguments, **named)
        if inside[0]:
            at(f"{inside[0]} sequenced")
        return result

    log.sequence = sequenced
    rollouts.start = within("start", rollouts.start)
    rollouts.move = within("move", rollouts.move)
    whole = relational_rollouts.RelationalRollouts
    whole.start_rollout = after("started", whole.start_rollout)
    whole.move_rollout = after("moved", whole.move_rollout)
    making.make_version = after("version made", making.make_version)


def main() -> None:
    """The adapter's entry point."""
    install(os.environ.get("CAPSIGN_TEST_CRASH", ""))
    __main__.main()


if __name__ == "__main__":
    main()
