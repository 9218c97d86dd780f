"""Whether another message may be sent beside those in flight, decided without I/O.

A few callers get a message at once while fewer than `window` are in flight. Where many call, a
message in flight keeps the next until half of all their items are in it: threads come back from an
answer one by one, and messages of a few would follow each other, each at the price of a large one.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from capsign.jobs import Message

FEW = 8
"""So many items at once are few: they wait only for the window."""

LARGE = 64
"""Items of a message that waits for no others, however many callers there are."""

STALLED_AFTER = 0.02
"""Seconds after which an unanswered message does not count against the window any more, so that one
slow key does not stop the others; later if no message is answered sooner than that.
"""

STALLED_AT_MOST = 0.5
"""The longest that this can become, seconds."""

TRIPS = 8
"""Answers of which the quickest says how long a message takes when nothing keeps it."""

MAX_IN_FLIGHT = 32
"""Most messages in flight, stalled ones included."""


class SendWindow:
    """The window of one stream. It is told of items that are added and messages that are
    answered.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._returning = 0
        """Items that were answered and whose callers may be about to ask again. Each new item takes
        one off; each answer halves what is left of those before it, for not all come back.
        """
        self._trips: deque[float] = deque([0.0], TRIPS)
        self.stalled_after = STALLED_AFTER
        """Seconds after which a message counts as stalled now: twice the quickest of the last
        answers, within the bounds above. Where all are slow, as on a machine that is overloaded,
        more and smaller messages would make them slower.
        """

    def added(self, items: int) -> None:
        """A caller asks for so many."""
        self._returning = max(0, self._returning - items)

    def answered(self, message: Message, now: float) -> None:
        """A message was answered."""
        self._returning = self._returning // 2 + sum(message.sizes)
        self._trips.append(now - message.sent_at)
        twice = 2 * min(self._trips)
        self.stalled_after = min(max(STALLED_AFTER, twice), STALLED_AT_MOST)

    def has_room(self, flying: dict[int, Message], waiting: int, now: float) -> bool:
        """Whether the items that wait may go now. `flying` are the messages in flight, in the order
        in which they were sent.
        """
        if not flying:
            return True
        if len(flying) >= MAX_IN_FLIGHT:
            return False
        window = self._window
        if len(flying) < window:
            if waiting >= LARGE or self._is_half(flying, waiting):
                return True
            window = len(flying)
        counted = next(islice(reversed(flying.values()), window - 1, None))
        return now - counted.sent_at >= self.stalled_after

    def _is_half(self, flying: dict[int, Message], waiting: int) -> bool:
        """Whether what waits is half of the items of all who call, or those are few."""
        sent = sum(sum(message.sizes) for message in flying.values())
        return sent + waiting + self._returning <= max(FEW, 2 * waiting)
