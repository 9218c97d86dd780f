"""A token bucket in integer arithmetic: how many signatures are allowed now, and how long to wait
for one more. Agent and adapter use it alike, each for itself.

A grant of `per_second` and `burst` lets `burst` signatures pass at once and `per_second` a second
for good: a bucket of `burst` that `per_second` fill.

A bucket holds thousandths of a signature, so that a millisecond at n a second adds exactly n of
them. Time is an argument, in milliseconds of a monotonic clock. If it runs backwards, nothing is
added until it has caught up. So never use the wall clock: set back by an hour, it would block an
empty bucket for that hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

ONE = 1000
"""One signature, in the units of a bucket."""


class Taken(NamedTuple):
    """How many were granted; and if not all were, after how many milliseconds the next one will
    be.
    """

    granted: int
    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """The content, in thousandths of a signature, at a time in milliseconds."""

    left: int
    at_ms: int


def full(burst: int, now_ms: int) -> Bucket:
    """Returns a full bucket."""
    return Bucket(burst * ONE, now_ms)


def refill(bucket: Bucket, per_second: int, burst: int, now_ms: int) -> Bucket:
    """Returns the bucket at `now_ms`. It never holds more than `burst`."""
    elapsed = max(0, now_ms - bucket.at_ms)
    return Bucket(min(burst * ONE, bucket.left + elapsed * per_second), max(now_ms, bucket.at_ms))


def take(
    bucket: Bucket, per_second: int, burst: int, count: int, now_ms: int, kept: int = 0
) -> tuple[Bucket, Taken]:
    """Take up to `count`, leaving `kept` for others. `per_second` and `burst` are at least 1.
    Returns the new bucket and what was granted.
    """
    now = refill(bucket, per_second, burst, now_ms)
    granted = max(0, min(count, now.left // ONE - kept))
    left = now.left - granted * ONE
    wait = 0 if granted == count else wait_ms(left, (kept + 1) * ONE, per_second)
    return Bucket(left, now.at_ms), Taken(granted, wait)


def wait_ms(left: int, needed: int, per_second: int) -> int:
    """Returns the milliseconds until a bucket with `left` thousandths has `needed`."""
    return -(-(needed - left) // per_second)
