"""Watches a rollout until it has ended: a live view, or a line for each change."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from capsign_cli import output, rollout_view

if TYPE_CHECKING:
    from capsign_wire.adapter.v1 import rollouts_pb2 as pb

LOOK_SECONDS = 1.0
"""Between looks."""

Look = Callable[[], "pb.GetRolloutResponse"]
"""Where the rollout is now."""


def lines(look: Look) -> None:
    """A line for each change; for who has no terminal."""
    shown = ""
    while True:
        found = look().rollout
        found.remaining_ms = 0
        line = rollout_view.line_of(found)
        if line != shown:
            output.line(rollout_view.values_of(found), line)
        shown = line
        if rollout_view.is_over(found):
            return
        time.sleep(LOOK_SECONDS)


def live(look: Look) -> None:
    """The live view."""
    from rich.live import Live

    with Live(refresh_per_second=4) as shown:
        while True:
            found = look()
            shown.update(rollout_view.picture_of(found.rollout, found.steps), refresh=True)
            if rollout_view.is_over(found.rollout):
                return
            time.sleep(LOOK_SECONDS)
