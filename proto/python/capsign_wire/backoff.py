"""How long to wait between attempts: exponential back-off with jitter, the same for every process.

The jitter spreads those that failed together: between half of the delay and the whole of it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubles from `first_s` to `most_s`, both in seconds."""

    first_s: float
    most_s: float

    def delay_s(self, failures: int, spread: float | None = None) -> float:
        """Returns the seconds to wait after this many failures in a row; 0.0 after none.

        `spread` is a random number from 0 to 1: 0 gives half of the delay, 1 the whole.
        """
        if failures < 1:
            return 0.0
        part = random.random() if spread is None else spread
        doubled: float = self.first_s * 2 ** min(failures - 1, 62)
        return min(self.most_s, doubled) * (0.5 + part / 2)
