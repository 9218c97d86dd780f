"""Reserved parts of the calls that are served at once.

Half of the capacity is reserved for the tenants, in equal parts, and an eighth for people with
roles; the rest is common. So no tenant can use up the part of another, however many workloads and
certificates it has. Does no I/O; not safe for threads by itself.
"""

from __future__ import annotations

from collections import Counter

PEOPLE = ""
"""The owner of calls by identities with a role and no grant."""


class ReservedCapacity:
    """Counts the calls of each owner: a tenant, or PEOPLE."""

    def __init__(self, max_calls: int, tenants: int) -> None:
        self._max_calls = max_calls
        self.people = max_calls // 8
        """Calls that are reserved for people."""
        self._held: Counter[str] = Counter()
        self._tenants = -1
        self.divide(tenants)

    def divide(self, tenants: int) -> None:
        """There are so many tenants from now on. Calls that are open stay; an owner with more than
        its part by then gets no more until some have ended.
        """
        if tenants == self._tenants:
            return
        self._tenants = tenants
        self.each = self._max_calls // 2 // max(1, tenants)
        """Calls that are reserved for each tenant."""
        self._common = self._max_calls - self.people - tenants * self.each
        self._above = sum(max(0, held - self._own(owner)) for owner, held in self._held.items())

    def has_capacity(self, owner: str) -> bool:
        """Whether this owner may have one more call."""
        free = self._max_calls - len(self)
        if owner != PEOPLE:
            free -= max(0, self.people - self._held[PEOPLE])
        # A tenant that policy no longer has may still hold what is now reserved for others.
        if free <= 0:
            return False
        return self._held[owner] < self._own(owner) or self._above < self._common

    def acquire(self, owner: str) -> None:
        """Count one more call."""
        if self._held[owner] >= self._own(owner):
            self._above += 1
        self._held[owner] += 1

    def release(self, owner: str) -> None:
        """Count one call less."""
        self._held[owner] -= 1
        if self._held[owner] >= self._own(owner):
            self._above -= 1
        if not self._held[owner]:
            del self._held[owner]

    def __len__(self) -> int:
        return self._held.total()

    def _own(self, owner: str) -> int:
        return self.each if owner != PEOPLE else self.people
