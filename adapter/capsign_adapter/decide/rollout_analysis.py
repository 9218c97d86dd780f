"""From what was counted of a step to a verdict. Whole numbers only, so that all who compute it come
to the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate

from capsign_adapter.model.rollouts import LATENCY_BOUNDS_MS, Side, Triggers

MILLION = 1_000_000


class Verdict(IntEnum):
    """What the figures of a step say, by the numbers of capsign.adapter.v1.RolloutVerdict."""

    HEALTHY = 1
    FAILED = 2
    """A trigger is breached: it is rolled back."""
    INCONCLUSIVE = 3
    """There are too few samples to say."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """One measure beside its bound. Rates are parts in a million, times milliseconds; `samples` of
    the `needed`. A measure of too few samples is never breached.
    """

    name: str
    value: int
    bound: int
    samples: int
    needed: int
    required: bool
    """Whether it takes the samples to be healthy."""

    @property
    def is_known(self) -> bool:
        return self.samples >= max(self.needed, 1)

    @property
    def is_breached(self) -> bool:
        return self.is_known and self.value > self.bound

    @property
    def is_lacking(self) -> bool:
        """Whether the verdict waits for samples of it."""
        return self.required and self.samples < self.needed


def measures(side: Side, triggers: Triggers) -> tuple[Trigger, ...]:
    """Each trigger with what was counted."""
    calls = side.signed + side.refused + side.unanswered
    failures = side.refused + side.unanswered
    verifications = side.verified + side.verify_failed
    found = [
        Trigger(
            "error rate",
            _ppm(failures, calls),
            triggers.error_ppm,
            calls,
            triggers.min_samples,
            required=True,
        ),
        Trigger(
            "verify-failure rate",
            _ppm(side.verify_failed, verifications),
            triggers.verify_failure_ppm,
            verifications,
            triggers.min_verifications,
            required=triggers.verifications_required,
        ),
    ]
    if triggers.p99_ms:
        timed = sum(side.latencies)
        slow, bound, needed = p99_ms(side), triggers.p99_ms, triggers.min_samples
        found.append(Trigger("p99", slow, bound, timed, needed, required=False))
    return tuple(found)


def verdict_of(side: Side, triggers: Triggers) -> Verdict:
    """One breached trigger is enough to fail; one that lacks samples, to be inconclusive."""
    found = measures(side, triggers)
    if any(each.is_breached for each in found):
        return Verdict.FAILED
    if any(each.is_lacking for each in found):
        return Verdict.INCONCLUSIVE
    return Verdict.HEALTHY


def p99_ms(side: Side) -> int:
    """The upper end of the class that has the 99th percentile, milliseconds; 0 without samples. In
    the class without an end: one more than the last bound.
    """
    total = sum(side.latencies)
    if not total:
        return 0
    rank = -(-total * 99 // 100)
    bounds = (*LATENCY_BOUNDS_MS, LATENCY_BOUNDS_MS[-1] + 1)
    return next(
        bound
        for bound, seen in zip(bounds, accumulate(side.latencies), strict=True)
        if seen >= rank
    )


def _ppm(part: int, whole: int) -> int:
    """Rounded up: a rate just above its bound is above it."""
    return -(-part * MILLION // whole) if whole else 0
