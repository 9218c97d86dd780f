"""Who of those that share a rate has had more of it lately than an equal part. Pure: time is an
argument.

The pods of a Deployment share the rate of its grant, and the workloads of a tenant share what the
tenant may cause. One that takes whatever is there must leave the others theirs, and one that is
alone must have it all. So nobody has a fixed part: it is remembered who used how much lately, and
from whoever is above an equal part a piece is kept back; see `rate.Buckets`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

HALF_LIFE_MS = 5_000
"""After this long a use counts half, and who has not asked for twice as long is no longer one of
those that share.
"""

MOST = 1024
"""Most members remembered of one rate; who asked longest ago is forgotten first."""

Member = str | bytes


@dataclass(slots=True)
class Seen:
    used: int
    at_ms: int


@dataclass(slots=True)
class FairShare:
    """The members of one rate. Not safe to share between threads by itself."""

    turned_ms: int
    """When everything was halved last."""
    seen: dict[Member, Seen] = field(default_factory=dict)
    total: int = 0

    def asks(self, member: Member, now_ms: int) -> bool:
        """Note that this member asks; whether it has had more than its part."""
        self._turn(now_ms)
        seen = self.seen.pop(member, None) or Seen(0, now_ms)
        seen.at_ms = now_ms
        self.seen[member] = seen
        if len(self.seen) > MOST:
            first = next(iter(self.seen))
            self.total -= self.seen.pop(first).used
        return seen.used * len(self.seen) > self.total

    def uses(self, member: Member, count: int) -> None:
        """Note what the member that asked just now was given; below 0: what it gave back."""
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
