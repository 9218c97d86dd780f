"""Token buckets in whole numbers: how many signatures may pass now, and how long to wait for one
more.

A bucket holds thousandths of a signature, so that a millisecond at n a second adds exactly n of
them. Time is an argument, or a clock is, in milliseconds that do not run backwards; if they do,
nothing is added until they are where they were. Hence never the clock on the wall: an hour back on
it, and whoever has used up a bucket would wait that hour.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

from capsign_adapter.decide.usage import Member, Usage

CAPACITY = 65_536
"""Most buckets kept."""

_ONE = 1000


class Taken(NamedTuple):
    """How many may pass, and if some may not, after how many milliseconds the next one may."""

    granted: int
    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """What is left, in thousandths, and when that was so."""

    left: int
    at_ms: int


def full(burst: int, now_ms: int) -> Bucket:
    """The bucket of somebody who has not signed for long."""
    return Bucket(burst * _ONE, now_ms)


def refill(bucket: Bucket, per_second: int, burst: int, now_ms: int) -> Bucket:
    """The bucket now. It never holds more than `burst`."""
    elapsed = max(0, now_ms - bucket.at_ms)
    return Bucket(min(burst * _ONE, bucket.left + elapsed * per_second), max(now_ms, bucket.at_ms))


def take(
    bucket: Bucket, per_second: int, burst: int, count: int, now_ms: int, kept: int = 0
) -> tuple[Bucket, Taken]:
    """Take up to `count`. `per_second` and `burst` are at least 1. What is granted is gone. `kept`
    stay for others.
    """
    now = refill(bucket, per_second, burst, now_ms)
    granted = max(0, min(count, now.left // _ONE - kept))
    left = now.left - granted * _ONE
    wait = 0 if granted == count else _wait(left, (kept + 1) * _ONE, per_second)
    return Bucket(left, now.at_ms), Taken(granted, wait)


def spend(
    bucket: Bucket, per_second: int, burst: int, count: int, now_ms: int, kept: int = 0
) -> tuple[Bucket, Taken]:
    """Take all of `count` if there is one, and owe the rest: who needs many is not overtaken for
    ever by those who need one.

    For whom `kept` are kept back, there must be all of `count` beside them, or a full bucket:
    others must not pay its debts.
    """
    now = refill(bucket, per_second, burst, now_ms)
    needed = min(kept + count, burst) * _ONE if kept else _ONE
    if now.left < needed:
        return now, Taken(0, _wait(now.left, needed, per_second))
    return Bucket(now.left - count * _ONE, now.at_ms), Taken(count, 0)


def kept_of(burst: int) -> int:
    """How many of a bucket are kept back from a member that had more than its part lately: half,
    and one where there are two.
    """
    return burst // 2


def _wait(left: int, needed: int, per_second: int) -> int:
    return -(-(needed - left) // per_second)


_Way = Callable[[Bucket, int, int, int, int, int], tuple[Bucket, Taken]]


@dataclass(slots=True)
class _Shared:
    """A bucket, and those who draw from it."""

    bucket: Bucket
    usage: Usage


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
            if shared is not None and not 0 < burst * _ONE <= shared.bucket.left:
                shared.bucket = Bucket(shared.bucket.left + count * _ONE, shared.bucket.at_ms)
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
                full(room, now_ms), Usage(now_ms)
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
