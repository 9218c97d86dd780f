"""The rate limit of a grant, as this agent counts it. Pure; time is an argument."""

from __future__ import annotations

from capsign_wire import token_bucket


class RateLimit:
    """A token bucket: `per_second` on average, `burst` at once. A rate of 0 means no limit.

    It starts full. Times are seconds of a clock that does not run backwards.
    """

    __slots__ = ("_bucket", "_burst", "_per_second")

    def __init__(self, per_second: int, burst: int, now: float) -> None:
        self._per_second = per_second
        self._burst = max(burst, 1)
        self._bucket = token_bucket.full(self._burst, _ms(now))

    def change(self, per_second: int, burst: int, now: float) -> None:
        """Use the limits of a renewed handle; what was used stays used."""
        if (per_second, max(burst, 1)) == (self._per_second, self._burst):
            return
        old = token_bucket.refill(self._bucket, self._per_second, self._burst, _ms(now))
        self._per_second, self._burst = per_second, max(burst, 1)
        self._bucket = token_bucket.refill(old, self._per_second, self._burst, _ms(now))

    def take(self, wanted: int, now: float) -> token_bucket.Taken:
        """Use up to `wanted` signatures; returns how many are granted, and in how many milliseconds
        the next one will be.
        """
        if not self._per_second:
            return token_bucket.Taken(wanted, 0)
        self._bucket, taken = token_bucket.take(
            self._bucket, self._per_second, self._burst, wanted, _ms(now)
        )
        return taken


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
