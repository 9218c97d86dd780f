"""How long a call waits for company while a batch is under way. Pure: time is an argument.

A batch of one costs agent and adapter nearly as much as one of sixteen: a message, a commit, an
answer. So a call that finds all streams idle is sent at once, and one that comes while a batch is
under way waits for others: until that batch is back, or for a part of the time that batches took
lately. The bound is short, so that an adapter that hangs, or a slow signature, holds up nobody.
"""

from __future__ import annotations

MOST_S = 0.005
"""Longest wait for company, seconds."""

PART = 0.5
"""The wait, as a part of the time from one batch's taking to its answer."""

ENOUGH_ITEMS = 16
"""With so many items there is company enough: they are sent at once if a stream is idle."""

_WEIGHT = 1 / 8
"""Of the latest batch in the average of their times."""


class Gathering:
    """Which streams are at work, and how long their batches take. For one event loop."""

    def __init__(self) -> None:
        self._coming: set[object] = set()
        self._since: dict[object, float] = {}
        """When each stream at work took its batch."""
        self._took_s = 0.0

    @property
    def coming(self) -> bool:
        """Whether a stream was woken that has not taken a batch yet: it takes what waits."""
        return bool(self._coming)

    def wait_s(self, items: int) -> float:
        """How long these items, all that wait, may wait for company, seconds; 0: not at all."""
        if not self._since or items >= ENOUGH_ITEMS:
            return 0.0
        return min(MOST_S, self._took_s * PART)

    def woken(self, stream: object) -> None:
        """This stream is about to take a batch."""
        self._coming.add(stream)

    def took(self, stream: object, now: float) -> None:
        """This stream has taken a batch."""
        self._coming.discard(stream)
        self._since[stream] = now

    def back(self, stream: object, now: float) -> None:
        """This stream has no batch now: its answer came, or it found none."""
        self._coming.discard(stream)
        since = self._since.pop(stream, None)
        if since is not None:
            self._took_s += (now - since - self._took_s) * _WEIGHT

    def gone(self, stream: object) -> None:
        """This stream has ended. What it had says nothing of how long batches take."""
        self._coming.discard(stream)
        self._since.pop(stream, None)
