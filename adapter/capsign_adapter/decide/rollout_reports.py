"""What the reports of workloads weigh in a rollout's step, so that one that lies decides nothing
alone. Pure, and in whole numbers only.

Reports are what the adapter cannot see by itself: verifications, calls without an answer, and
latencies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum

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
    """It holds, whichever reporter is left out."""
    DISPUTED = 1
    """It depends on one reporter."""
    UNDISPUTED = 2
    """It depends on the only reporter that there is."""
    FIRM = 3
    """It is breached, whichever reporter is left out."""


def weighed(bad: int, total: int, needed: int) -> Samples:
    """The samples of one reporter, as many as it may add to a step; its bad ones in proportion,
    rounded up.
    """
    most = max(WEIGHT, needed)
    return (bad, total) if total <= most else (-(-bad * most // total), most)


def breach_of(
    own: Samples, reporters: Sequence[Samples], heard: int, is_above: Callable[[int, int], bool]
) -> Breach:
    """What is to be thought of a bound, given what the adapter knows by itself and each reporter's
    samples as they weigh. `heard`: how many reporters could have said otherwise, and themselves.
    `is_above` says of bad ones and of all whether they breach it.

    If all but one tell the truth, the answer is never FIRM where the truth breaches no bound, and
    never NONE where it breaches one: the one who lies is among those who are left out.
    """
    bad, total = (sum(each) for each in zip(own, *reporters, strict=True))
    without = [is_above(bad - worse, total - some) for worse, some in reporters if some]
    above = is_above(bad, total)
    if all(without) and above:
        return Breach.FIRM
    if above and heard == 1:
        return Breach.UNDISPUTED
    return Breach.DISPUTED if above or any(without) else Breach.NONE
