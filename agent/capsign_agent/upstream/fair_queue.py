"""A fair queue: deficit round robin (Shreedhar, Varghese 1995). Pure.

Each owner has a queue of its own. In each round an owner gets `quantum` more credit, and may take
items up to the credit it has; an item that costs more waits for a later round. So over time owners
that want more than there is get equal shares by cost, however often and however much they ask, and
an owner that asks for little waits for one round at most.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """One queue for each owner, and the order of the round. For one event loop."""

    def __init__(
        self, quantum: int, owner: Callable[[T], Hashable], cost: Callable[[T], int]
    ) -> None:
        self._quantum = quantum
        self._owner = owner
        self._cost = cost
        self._lines: dict[Hashable, deque[T]] = {}
        self._saved: dict[Hashable, int] = {}
        """The credit of each owner that has items; it is lost when its queue is empty."""
        self._round: deque[Hashable] = deque()
        """The owners that have items, in the order of the round."""

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __bool__(self) -> bool:
        return bool(self._round)

    def __iter__(self) -> Iterator[T]:
        for line in list(self._lines.values()):
            yield from line

    @property
    def owners(self) -> list[Hashable]:
        """The owners that have items."""
        return list(self._round)

    def firsts(self) -> list[T]:
        """The first item of each owner."""
        return [line[0] for line in self._lines.values()]

    def append(self, one: T) -> None:
        """Add an item at the end of its owner's queue."""
        line = self._lines.get(self._owner(one))
        if line is None:
            line = self._line(one)
        line.append(one)

    def append_first(self, one: T) -> None:
        """Add an item at the front of its owner's queue."""
        self._line(one).appendleft(one)

    def remove(self, one: T) -> bool:
        """Remove an item, wherever it is; returns False if it is not there."""
        owner = self._owner(one)
        line = self._lines.get(owner)
        if line is None or one not in line:
            return False
        line.remove(one)
        if not line:
            self._leave(owner)
        return True

    def peek(self, skip: Collection[Hashable] = ()) -> T | None:
        """The next item, leaving out these owners; None if no other owner has one."""
        if not self._round:
            return None
        if len(self._round) == 1 and not skip:
            return self._lines[self._round[0]][0]
        among = sum(owner not in skip for owner in self._round)
        if not among:
            return None
        while True:
            owner = self._round[0]
            first = self._lines[owner][0]
            if owner not in skip:
                if among == 1 or self._cost(first) <= self._saved[owner]:
                    return first
                self._saved[owner] += self._quantum
            self._round.rotate(-1)

    def pop(self) -> T:
        """Remove the item that `peek` returned just now."""
        owner = self._round[0]
        one = self._lines[owner].popleft()
        self._saved[owner] = max(0, self._saved[owner] - self._cost(one))
        if not self._lines[owner]:
            self._leave(owner)
        return one

    def clear(self) -> None:
        """Remove everything."""
        self._lines.clear()
        self._saved.clear()
        self._round.clear()

    def _line(self, one: T) -> deque[T]:
        owner = self._owner(one)
        line = self._lines.get(owner)
        if line is None:
            line = self._lines[owner] = deque()
            self._saved[owner] = self._quantum
            self._round.append(owner)
        return line

    def _leave(self, owner: Hashable) -> None:
        del self._lines[owner]
        del self._saved[owner]
        self._round.remove(owner)
