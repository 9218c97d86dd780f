"""How places are kept for those who have none yet, while others take what is left. Pure but for its
counts; not for threads.

Half of all places are reserved, an equal part for each tenant; an eighth is for people with roles;
the rest is common. So no tenant keeps another from the part that is its own, however many workloads
and certificates it has.
"""

from __future__ import annotations

from collections import Counter

PEOPLE = ""
"""Who has a role, and no grant."""


class ReservedCapacity:
    """Who holds how many of the places."""

    def __init__(self, places: int, tenants: int) -> None:
        self.each = places // 2 // max(1, tenants)
        """What is kept for each tenant."""
        self.people = places // 8
        """What is kept for people."""
        self._common = places - self.people - tenants * self.each
        self._above = 0
        self._held: Counter[str] = Counter()

    def has_capacity(self, owner: str) -> bool:
        """Whether one more may be taken for this tenant, or for PEOPLE."""
        return self._held[owner] < self._own(owner) or self._above < self._common

    def acquire(self, owner: str) -> None:
        """One more."""
        if self._held[owner] >= self._own(owner):
            self._above += 1
        self._held[owner] += 1

    def release(self, owner: str) -> None:
        """One less."""
        self._held[owner] -= 1
        if self._held[owner] >= self._own(owner):
            self._above -= 1
        if not self._held[owner]:
            del self._held[owner]

    def __len__(self) -> int:
        return self._held.total()

    def _own(self, owner: str) -> int:
        return self.each if owner != PEOPLE else self.people
