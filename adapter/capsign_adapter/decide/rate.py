"""Token buckets of this replica: one for each grant of each workload, shared by all pods of the
workload.

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
    """Take all of `count` if the bucket has at least one, and let it go below zero, so that a large
    request is not overtaken for ever by small ones.

    A member from which `kept` are withheld needs all of `count` beyond those, or a full bucket:
    others must not pay its debts.
    """
    now = refill(bucket, per_second, burst, now_ms)
    needed = min(kept + count, burst) * ONE if kept else ONE
    if now.left < needed:
        return now, Taken(0, wait_ms(now.left, needed, per_second))
    return Bucket(now.left - count * ONE, now.at_ms), Taken(count, 0)


def kept_of(burst: int) -> int:
    """Returns how many of a bucket are withheld from a member that had more than an equal part
    lately: half; one of two.
    """
    return burst // 2


_Way = Callable[[Bucket, int, int, int, int, int], tuple[Bucket, Taken]]


@dataclass(slots=True)
class _Shared:
    """A bucket, and the use of its members."""

    bucket: Bucket
    usage: FairShare


class Buckets:
    """A bucket for each grant of each workload. Safe for any thread.

    Callers that share a bucket are told apart by `member`, and none of them can use it up: half is
    withheld from one that had more than an equal part lately. One that is alone gets everything.

    At `capacity` the least recently used bucket is dropped; it starts full when it is seen again.
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
        """Take up to `count` signatures of this workload under this grant. A rate of 0 is no limit.
        Returns how many were granted, and milliseconds until the next.
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
        """Take all of `count` or nothing; the bucket may go below zero, see the function `spend`. A
        rate of 0 is no limit.
        """
        return self._from(spend, workload, name, per_second, burst, count, member)

    def give_back(
        self, workload: str, name: str, count: int, member: Member = b"", burst: int = 0
    ) -> None:
        """Give back what was taken and not used. A bucket never holds more than its burst: the next
        `take` bounds it, and with `burst` given a full one is left as it is.
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
