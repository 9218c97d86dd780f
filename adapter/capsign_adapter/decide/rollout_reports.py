"""What the reports of workloads weigh in a rollout's step, so that those that lie decide nothing
unless they are many. Pure, and in whole numbers only.

Reports are what the adapter cannot see by itself: verifications, calls without an answer, and
latencies.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

MILLION = 1_000_000

PARTS = 10
"""One of so many who report may lie, and decides nothing with the others who do; one at least."""

WEIGHT = 1_000
"""Most samples of one kind that one reporter adds to a step, unless a trigger needs more to say
anything. Who reported more keeps its rate.
"""

MOST_COUNTED = 2**53
"""Where the counts of one reporter end: whole numbers that JSON keeps everywhere (RFC 8259, 6)."""

Samples = tuple[int, int]
"""How many were bad, of how many."""


class Breach(IntEnum):
    """What samples of several reporters say of a bound."""

    NONE = 0
    """It holds, whichever reporters are left out: `liars` of them."""
    DISPUTED = 1
    """It depends on those few."""
    UNDISPUTED = 2
    """It depends on the only reporter that there is."""
    FIRM = 3
    """It is breached, whichever of them are left out."""


def weighed(bad: int, total: int, needed: int) -> Samples:
    """The samples of one reporter, as many as it may add to a step; its bad ones in proportion,
    rounded up.
    """
    most = max(WEIGHT, needed)
    return (bad, total) if total <= most else (-(-bad * most // total), most)


class Bound(NamedTuple):
    """A rate that may not be exceeded, parts in a million, and the samples that it takes to say
    anything.
    """

    ppm: int
    needed: int

    def is_above(self, bad: int, total: int) -> bool:
        """Whether these samples exceed it."""
        return self.is_enough(total) and self.excess(bad, total) > 0

    def is_enough(self, total: int) -> bool:
        """Whether so many samples say anything."""
        return total >= max(self.needed, 1)

    def excess(self, bad: int, total: int) -> int:
        """By how much they exceed it, in millionths of a sample: that of all is the sum of all."""
        return bad * MILLION - total * self.ppm


def liars(heard: int) -> int:
    """How many of so many reporters may lie together and decide nothing."""
    return max(1, heard // PARTS)


def breach_of(own: Samples, reporters: Sequence[Samples], heard: int, bound: Bound) -> Breach:
    """What is to be thought of a bound, given what the adapter knows by itself and each reporter's
    samples as they weigh. `heard`: how many reporters could have said otherwise, and themselves.

    If no more than `liars(heard)` of them lie, the answer is never FIRM where the truth breaches no
    bound, and never NONE where it breaches one: those who lie are among those who are left out.
    """
    bad, total = (sum(each) for each in zip(own, *reporters, strict=True))
    most = liars(heard)
    excess = sorted(bound.excess(*each) for each in reporters)
    sizes = sorted(some for _, some in reporters)
    all_in = bound.excess(bad, total)
    above = bound.is_above(bad, total)
    if (
        above
        and all_in - sum(each for each in excess[-most:] if each > 0) > 0
        and bound.is_enough(total - sum(sizes[-most:]))
    ):
        return Breach.FIRM
    if above and heard == 1:
        return Breach.UNDISPUTED
    hidden = any(bound.is_above(bad - worse, total - some) for worse, some in reporters)
    if most > 1 and not hidden:
        # more than one at a time: whoever hides most, and fewest samples, though it be others
        hidden = all_in - sum(each for each in excess[:most] if each < 0) > 0 and bound.is_enough(
            total - sizes[0]
        )
    return Breach.DISPUTED if above or hidden else Breach.NONE
