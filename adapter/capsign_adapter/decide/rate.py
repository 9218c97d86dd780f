"""Token buckets in whole numbers: how many signatures may pass now, and how long to wait for one more.

A bucket holds thousandths of a signature, so that a millisecond at n a second adds exactly n of them. Time is an argument, or a
clock is, in milliseconds that do not run backwards; if they do, nothing is added until they are where they were. Hence never the
clock on the wall: an hour back on it, and whoever has used up a bucket would wait that hour.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

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


def take(bucket: Bucket, per_second: int, burst: int, count: int, now_ms: int) -> tuple[Bucket, Taken]:
    """Take up to `count`. `per_second` and `burst` are at least 1. What is granted is gone."""
    now = refill(bucket, per_second, burst, now_ms)
    granted = min(count, now.left // _ONE)
    left = now.left - granted * _ONE
    wait = 0 if granted == count else -(-(_ONE - left) // per_second)
    return Bucket(left, now.at_ms), Taken(granted, wait)


def spend(bucket: Bucket, per_second: int, burst: int, count: int, now_ms: int) -> tuple[Bucket, Taken]:
    """Take all of `count` if there is one, and owe the rest: who needs many is not overtaken for ever by those who need one."""
    now = refill(bucket, per_second, burst, now_ms)
    if now.left < _ONE:
        return now, Taken(0, -(-(_ONE - now.left) // per_second))
    return Bucket(now.left - count * _ONE, now.at_ms), Taken(count, 0)


_Way = Callable[[Bucket, int, int, int, int], tuple[Bucket, Taken]]


class Buckets:
    """A bucket for each grant of each workload, in this replica. Safe to share between threads.

    At its bound the bucket that was used longest ago is forgotten, and starts full when it is seen again: with the default
    bound that takes 65,536 others in between.
    """

    def __init__(self, monotonic_ms: Callable[[], int], capacity: int = CAPACITY) -> None:
        self._clock = monotonic_ms
        self._capacity = capacity
        self._kept: OrderedDict[tuple[str, str], Bucket] = OrderedDict()
        self._lock = Lock()

    def take(self, workload: str, grant: str, per_second: int, burst: int, count: int) -> Taken:
        """Take up to `count` signatures of this workload under this grant. A rate of 0 is no limit."""
        return self._from(take, workload, grant, per_second, burst, count)

    def spend(self, workload: str, name: str, per_second: int, burst: int, count: int) -> Taken:
        """Take all of `count` or nothing, and owe what is lacking; see `spend`. A rate of 0 is no limit."""
        return self._from(spend, workload, name, per_second, burst, count)

    def _from(self, way: _Way, workload: str, name: str, per_second: int, burst: int, count: int) -> Taken:
        if per_second == 0:
            return Taken(count, 0)
        room = max(burst, 1)
        with self._lock:
            now_ms = self._clock()
            bucket = self._kept.pop((workload, name), None) or full(room, now_ms)
            self._kept[workload, name], taken = way(bucket, per_second, room, count, now_ms)
            if len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
        return taken

    def __len__(self) -> int:
        return len(self._kept)
