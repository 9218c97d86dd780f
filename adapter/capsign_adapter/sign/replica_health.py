"""How this replica is: what keeps it from signing now, as words of an enumeration, for health.

Things that can be slow to ask (token, store) are looked at on threads of their own and remembered;
a look that does not come back is a fault too. Things that are at hand are asked when somebody wants
to know. Nothing here acts: a fault ends when what it names is well again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from capsign_wire import logs

LATE_MS = 15_000
"""A look that has not ended for this long: longer than one call of the token may take."""

STUCK_MS = 30_000
"""The replica's own clockwork, which waits for nobody, has not turned for this long: the process is
of no more use.
"""

Look = Callable[[], str]
"""Returns the name of a fault, or an empty text. May raise: `ReplicaHealth.look` names errors."""


class ReplicaHealth:
    """For any thread. `at_hand` are the looks that cost nothing and never block or raise."""

    def __init__(self, clock_ms: Callable[[], int], word_of: Callable[[Exception], str]) -> None:
        """`word_of` names an exception that a look raised."""
        self._clock_ms = clock_ms
        self._word_of = word_of
        self._lock = threading.Lock()
        self._at_hand: dict[str, Look] = {}
        self._words: dict[str, str] = {}
        self._asked_ms: dict[str, int] = {}
        self._beats: dict[str, int] = {}
        self._told: tuple[str, ...] = ()

    def watch(self, at_hand: Mapping[str, Look]) -> None:
        """Ask these whenever somebody wants to know."""
        self._at_hand.update(at_hand)

    def look(self, name: str, look: Look) -> None:
        """Look now, on this thread, and remember what was seen."""
        with self._lock:
            self._asked_ms[name] = self._clock_ms()
        try:
            word = look()
        except Exception as error:  # whatever it is, it keeps us from signing
            word = self._word_of(error)
        with self._lock:
            self._words[name] = word
            del self._asked_ms[name]

    def beat(self, name: str) -> None:
        """A part of the clockwork that waits for nobody has turned."""
        self._beats[name] = self._clock_ms()

    @property
    def alive(self) -> bool:
        """Whether the process still works: its clockwork turns. Says nothing about token, store or
        anybody else.
        """
        now_ms = self._clock_ms()
        return all(now_ms - at_ms < STUCK_MS for at_ms in list(self._beats.values()))

    def faults(self) -> tuple[str, ...]:
        """What keeps it from signing, sorted; empty: it serves. A change is logged, once."""
        now_ms = self._clock_ms()
        with self._lock:
            found = {word for word in self._words.values() if word}
            found |= {
                f"{name}_silent"
                for name, at_ms in self._asked_ms.items()
                if now_ms - at_ms >= LATE_MS
            }
        found |= {word for look in self._at_hand.values() if (word := look())}
        faults = tuple(sorted(found))
        with self._lock:
            before, self._told = self._told, faults
        if before != faults:
            (logs.warning if faults else logs.event)("health.changed", faults=" ".join(faults))
        return faults
