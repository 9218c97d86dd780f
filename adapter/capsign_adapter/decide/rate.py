"""What a workload draws from: a bucket for each of its grants, shared by all who are this workload.

Time comes from a clock in milliseconds that does not run backwards (`capsign_wire.token_bucket`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from capsign_wire.token_bucket import ONE, Bucket, Taken, full, refill, take, wait_ms

from capsign_adapter.decide.fair_share import FairShare, Member

CAPACITY = 65_536
"""Most buckets kept."""


def spend(
    bucket: Bucket, per_second: int, burst: int, count: int, now_ms: int, kept: int = 0
) -> tuple[Bucket, Taken]:
    """Take all of `count` if there is one, and owe the rest: who needs many is not overtaken for
    ever by those who need one.

    For whom `kept` are kept back, there must be all of `count` beside them, or a full bucket:
    others must not pay its debts.
    """
    now = refill(bucket, per_second, burst, now_ms)
    needed = min(kept + count, burst) * ONE if kept else ONE
    if now.left < needed:
        return now, Taken(0, wait_ms(now.left, needed, per_second))
    return Bucket(now.left - count * ONE, now.at_ms), Taken(count, 0)


def kept_of(burst: int) -> int:
    """How many of a bucket are kept back from a member that had more than its part lately: half,
    and one where there are two.
    """
    return burst // 2


_Way = Callable[[Bucket, int, int, int, int, int], tuple[Bucket, Taken]]


@dataclass(slots=True)
class _Shared:
    """A bucket, and those who draw from it."""

    bucket: Bucket
    usage: FairShare


class Buckets:
    """A bucket for each grant of each workload, in this replica. Safe to share between threads.

    Those who share a bucket say who they are (`member`), and none of them can use it up: from one
    that had more than an equal part of it lately, half is kept back. One that is alone has it all.

    At its bound the bucket that was used longest ago is forgotten, and starts full when it is seen
    again: with the default bound that takes 65,536 others in between.
    """

    def __init__(self, monotonic_ms: Callable[[], int], capacity: int = CAPACITY) -> None:
        self._clock = monotonic_ms
        self._capacity = capacity
        self._kept: OrderedDict[tuple[str, str], _Shared] = OrderedDict()
        self._lock = Lock()

    def take(
        self,
        workload: str,
        grant: str,
        per_second: int,
        burst: int,
        count: int,
        member: Member = b"",
    ) -> Taken:
        """Take up to `count` signatures of this workload under this grant. A rate of 0 is no
        limit.
        """
        return self._from(take, workload, grant, per_second, burst, count, member)

    def spend(
        self,
        workload: str,
        name: str,
        per_second: int,
        burst: int,
        count: int,
        member: Member = b"",
    ) -> Taken:
        """Take all of `count` or nothing, and owe what is lacking; see `spend`. A rate of 0 is no
        limit.
        """
        return self._from(spend, workload, name, per_second, burst, count, member)

    def give_back(
        self, workload: str, name: str, count: int, member: Member = b"", burst: int = 0
    ) -> None:
        """What was spent and not used after all. It never fills a bucket above its burst: the next
        look sees to that, and a full one is left as it is where `burst` tells that it is full.
        """
        with self._lock:
            shared = self._kept.get((workload, name))
            if shared is not None and not 0 < burst * ONE <= shared.bucket.left:
                shared.bucket = Bucket(shared.bucket.left + count * ONE, shared.bucket.at_ms)
                shared.usage.asks(member, shared.bucket.at_ms)
                shared.usage.uses(member, -count)

    def _from(
        self,
        way: _Way,
        workload: str,
        name: str,
        per_second: int,
        burst: int,
        count: int,
        member: Member,
    ) -> Taken:
        if per_second == 0:
            return Taken(count, 0)
        room = max(burst, 1)
        with self._lock:
            now_ms = self._clock()
            shared = self._kept.pop((workload, name), None) or _Shared(
                full(room, now_ms), FairShare(now_ms)
            )
            self._kept[workload, name] = shared
            kept = kept_of(room) if shared.usage.asks(member, now_ms) else 0
            shared.bucket, taken = way(shared.bucket, per_second, room, count, now_ms, kept)
            shared.usage.uses(member, taken.granted)
            if len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
        return taken

    def __len__(self) -> int:
        return len(self._kept)
