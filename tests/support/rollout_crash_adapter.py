"""The adapter, except that it kills itself (SIGKILL) at a step of a rollout's beginning or of its
being taken back, by a person or by a trigger. CAPSIGN_TEST_CRASH is the step; where it is empty the
adapter lives.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from capsign_adapter import __main__
from capsign_adapter.model.lifecycle import RolloutEvent
from capsign_adapter.rollout import making
from capsign_adapter.rollout.moves import Moves
from capsign_adapter.store import (
    key_versions,
    log,
    relational_rollouts,
    rollout_history,
    rollouts,
)

STARTING = ("version made", "start sequenced", "started")
"""A version is made; then, in one transaction, the rollout and its entry."""

TAKING_BACK = ("move sequenced", "moved")
"""In one transaction: the rollout's move, that of its version, and their entries."""

ROLLING_BACK = (
    "roll back decided",
    "move sequenced",
    "version moved",
    "move written",
    "moved",
)
"""The figures are kept and a trigger is breached; then, in one transaction, the entry of the
version, its state, and all of the rollout; then it is durable, but in force nowhere yet.
"""


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

    def after_inside(step: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            result = real(*arguments, **named)
            if inside[0]:
                at(step.format(inside[0]))
            return result

        return call

    do = Moves.do

    def decided(moves: Moves, row: Any, event: Any, actor: str = "") -> Any:
        if event is RolloutEvent.ROLL_BACK:
            at("roll back decided")
        return do(moves, row, event, actor)

    Moves.do = decided
    log.sequence = after_inside("{} sequenced", log.sequence)
    key_versions.move = after_inside("version moved", key_versions.move)
    rollout_history.add = after_inside("{} written", rollout_history.add)
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
