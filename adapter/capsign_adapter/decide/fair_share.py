"""Which of the members that share a rate have had more than an equal part of it lately. Pure: time
is an argument.

The pods of a Deployment share the rate of its grant, and the workloads of a tenant share its
budget. A greedy member must leave the others theirs, and one that is alone must get everything. So
nobody has a fixed part: recent use is remembered, and a part of the rate is withheld from members
above an equal part; see `rate.Buckets`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

HALF_LIFE_MS = 5_000
"""After this time a use counts half. A member that has not asked for twice as long no longer counts
among those that share.
"""

MOST = 1024
"""Most members remembered of one rate; the one that asked longest ago is dropped first."""

Member = str | bytes


@dataclass(slots=True)
class Seen:
    used: int
    at_ms: int


@dataclass(slots=True)
class FairShare:
    """The members of one rate. Not safe to share between threads by itself."""

    turned_ms: int
    """When all uses were halved last, milliseconds."""
    seen: dict[Member, Seen] = field(default_factory=dict)
    total: int = 0

    def asks(self, member: Member, now_ms: int) -> bool:
        """Record that this member asks. Returns whether it has had more than an equal part."""
        self._turn(now_ms)
        seen = self.seen.pop(member, None) or Seen(0, now_ms)
        seen.at_ms = now_ms
        self.seen[member] = seen
        if len(self.seen) > MOST:
            first = next(iter(self.seen))
            self.total -= self.seen.pop(first).used
        return seen.used * len(self.seen) > self.total

    def uses(self, member: Member, count: int) -> None:
        """Record what the member that asked just now was given; a negative count gives back."""
        seen = self.seen[member]
        count = max(count, -seen.used)
        seen.used += count
        self.total += count

    def _turn(self, now_ms: int) -> None:
        turns = (now_ms - self.turned_ms) // HALF_LIFE_MS
        if turns < 1:
            return
        self.turned_ms += turns * HALF_LIFE_MS
        kept = {
            name: seen for name, seen in self.seen.items() if now_ms - seen.at_ms < 2 * HALF_LIFE_MS
        }
        for seen in kept.values():
            seen.used >>= min(turns, 64)
        self.seen, self.total = kept, sum(seen.used for seen in kept.values())
