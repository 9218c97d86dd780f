"""A token bucket in whole numbers: how many signatures may pass now, and how long to wait for one
more. The agent and the adapter count alike, each for itself.

A grant of `per_second` and `burst` lets `burst` signatures pass at once and `per_second` a second
for good: a bucket of `burst` that `per_second` fill.

A bucket holds thousandths of a signature, so that a millisecond at n a second adds exactly n of
them. Time is an argument, in milliseconds that do not run backwards; if they do, nothing is added
until they are where they were. Hence never the clock on the wall: an hour back on it, and whoever
has used up a bucket would wait that hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

ONE = 1000
"""A signature, as a bucket counts."""


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
    return Bucket(burst * ONE, now_ms)


def refill(bucket: Bucket, per_second: int, burst: int, now_ms: int) -> Bucket:
    """The bucket now. It never holds more than `burst`."""
    elapsed = max(0, now_ms - bucket.at_ms)
    return Bucket(min(burst * ONE, bucket.left + elapsed * per_second), max(now_ms, bucket.at_ms))


def take(
    bucket: Bucket, per_second: int, burst: int, count: int, now_ms: int, kept: int = 0
) -> tuple[Bucket, Taken]:
    """Take up to `count`. `per_second` and `burst` are at least 1. What is granted is gone. `kept`
    stay for others.
    """
    now = refill(bucket, per_second, burst, now_ms)
    granted = max(0, min(count, now.left // ONE - kept))
    left = now.left - granted * ONE
    wait = 0 if granted == count else wait_ms(left, (kept + 1) * ONE, per_second)
    return Bucket(left, now.at_ms), Taken(granted, wait)


def wait_ms(left: int, needed: int, per_second: int) -> int:
    """Milliseconds until a bucket with `left` thousandths has `needed`."""
    return -(-(needed - left) // per_second)
