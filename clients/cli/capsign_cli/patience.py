"""Asks again where nobody answers for a while: what is watched outlasts its adapter's restart."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from capsign_cli.failures import UNAVAILABLE, told

Answer = TypeVar("Answer")

SILENT_SECONDS = 120.0
"""So long nobody may answer, unless a command was given a time of its own."""

AGAIN_SECONDS = 0.5
"""Between two attempts."""


def patient(
    look: Callable[[], Answer], seconds: float = SILENT_SECONDS, *, pause_s: float = AGAIN_SECONDS
) -> Callable[[], Answer]:
    """Returns a look that asks again for `seconds` while the answer is *unavailable*, and then
    raises what the last attempt raised. The first look is not: an address that is wrong is told at
    once.
    """
    answered = False

    def again() -> Answer:
        nonlocal answered
        until = time.monotonic() + seconds
        while True:
            try:
                found = look()
            except Exception as error:
                said = told(error)
                gone = said is not None and said.exit_code == UNAVAILABLE
                if not (answered and gone) or time.monotonic() >= until:
                    raise
                time.sleep(pause_s)
            else:
                answered = True
                return found

    return again
