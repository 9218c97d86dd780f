"""After which times silence says something (docs/decisions/0059-silence-late-and-lies.md)."""

from __future__ import annotations

from dataclasses import dataclass

MINUTE_MS = 60_000

MAX_STEP_MS = 30 * MINUTE_MS
"""How much time counts, at most, between two entries. A living agent speaks every 15 minutes: if
nobody was heard for longer, the adapter was away and nobody could be.
"""


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds, on the log's own time. Raises ValueError unless each is above 0 and none is
    below the one before it.
    """

    report_ms: int = 5 * MINUTE_MS
    """A signature that no agent has reported by then is late."""
    silence_ms: int = 60 * MINUTE_MS
    """A life that was not heard of for so long is silent; a living one speaks every 15 minutes."""
    cut_ms: int = 24 * 60 * MINUTE_MS
    """A life that was silent for so long does not come back."""

    def __post_init__(self) -> None:
        if not 0 < self.report_ms <= self.silence_ms <= self.cut_ms:
            raise ValueError("0 < report <= silence <= cut tail")
