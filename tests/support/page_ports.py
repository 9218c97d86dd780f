"""The ports that pages name, put elsewhere. They are fixed there because people read them, and two
runs of the tests on one machine must not meet.
"""

from __future__ import annotations

import os
import random
import re
import socket
from contextlib import ExitStack

FIXED = re.compile(r"\b174[46](?=[0-9]|\$number\b)")
"""All but the last digit of every port of the pages; there it may be a shell's `$number`."""


class PagePorts:
    """One choice for one reader, who reads several blocks."""

    def __init__(self) -> None:
        self._tens = dict(zip(("1744", "1746"), _free_tens(2), strict=True))

    def moved(self, text: str) -> str:
        """The text of a block with ports that nobody listens on."""
        return FIXED.sub(lambda found: self._tens[found[0]], text)


def _free_tens(count: int) -> list[str]:
    """All but the last digit of so many times ten ports, all of which are free now, of those that
    are this worker's.
    """
    first, last = map(int, os.environ["CAPSIGN_DEV_PORTS"].split("-"))
    found: list[str] = []
    for tens in random.sample(range(first // 10, last // 10), 149):
        try:
            with ExitStack() as held:
                for last in range(10):
                    held.enter_context(socket.create_server(("127.0.0.1", tens * 10 + last)))
        except OSError:
            continue
        found.append(str(tens))
        if len(found) == count:
            return found
    raise RuntimeError("there are not so many free ports on this machine")
