"""From what was counted of a step to a verdict. Whole numbers only, so that all who compute it come
to the same.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate
from typing import NamedTuple

from capsign_adapter.decide.rollout_reports import (
    MILLION,
    Bound,
    Breach,
    Samples,
    breach_of,
    weighed,
)
from capsign_adapter.model.rollouts import LATENCY_BOUNDS_MS, Side, Triggers


class Verdict(IntEnum):
    """What the figures of a step say, by the numbers of capsign.adapter.v1.RolloutVerdict."""

    HEALTHY = 1
    FAILED = 2
    """A trigger is breached: it is rolled back."""
    INCONCLUSIVE = 3
    """There are too few samples to say, or a few reporters alone say it."""


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
    breach: Breach

    @property
    def is_breached(self) -> bool:
        """Whoever is left out of those who report."""
        return self.breach is Breach.FIRM

    @property
    def is_doubtful(self) -> bool:
        """Whether it is breached or not on the word of a few reporters."""
        return self.breach in {Breach.DISPUTED, Breach.UNDISPUTED}

    @property
    def is_lacking(self) -> bool:
        """Whether the verdict waits for samples of it."""
        return self.required and self.samples < self.needed


NOBODY = Side()
"""Who nobody is compared with."""

CERTAIN = 2
"""So many times the least verifications are to be expected before their absence says anything."""


def measures(side: Side, triggers: Triggers, control: Side = NOBODY) -> tuple[Trigger, ...]:
    """Returns each trigger with what was counted. `control` are calls of others, who did not get
    what is new: where theirs are verified, those of `side` are to be as well (decision 70).
    """
    reports, most = side.reporters.values(), triggers.min_samples
    calls = (side.refused + side.unanswered, side.signed + side.refused + side.unanswered)
    lost = [weighed(each.unanswered, each.unanswered, most) for each in reports]
    answered = sum(1 for each in reports if each.unanswered or each.timed)
    rate = _Rate("error rate", triggers.error_ppm, most, required=True)
    found = [rate.of(calls, lost, answered)]
    most = triggers.min_verifications
    checks = (side.verify_failed, side.verified + side.verify_failed)
    said = [weighed(each.failed, each.verified + each.failed, most) for each in reports]
    required = triggers.verifications_required or _are_expected(side, control, most)
    rate = _Rate("verify-failure rate", triggers.verify_failure_ppm, most, required)
    found.append(rate.of(checks, said, sum(1 for _, total in said if total)))
    if triggers.p99_ms:
        found.append(_p99(side, triggers.p99_ms, triggers.min_samples))
    return tuple(found)


def verdict_of(
    side: Side, triggers: Triggers, control: Side = NOBODY, *, believes_one: bool = False
) -> Verdict:
    """One breached trigger is enough to fail; one that lacks samples, or that a few reporters
    decide, to be inconclusive. `believes_one`: nobody else is to be waited for, so that the only
    reporter that there is is believed. `control`: as in `measures`.
    """
    found = measures(side, triggers, control)
    fatal = {Breach.FIRM, Breach.UNDISPUTED} if believes_one else {Breach.FIRM}
    if any(each.breach in fatal for each in found):
        return Verdict.FAILED
    if any(each.is_lacking or each.is_doubtful for each in found):
        return Verdict.INCONCLUSIVE
    return Verdict.HEALTHY


def _are_expected(side: Side, control: Side, least: int) -> bool:
    """Whether verifications of this side's calls are missing if there are fewer than `least`: at
    the rate of the others' there would be CERTAIN times as many.
    """
    checked = control.verified + control.verify_failed
    return 0 < CERTAIN * least * control.signed <= side.signed * checked


def slower_than(latencies: Sequence[int], bound_ms: int) -> int:
    """Returns how many of the calls of LATENCY_BOUNDS_MS are in a class that ends above the
    bound.
    """
    return sum(latencies[bisect_right(LATENCY_BOUNDS_MS, bound_ms) :])


def p99_ms(side: Side) -> int:
    """Returns the upper end of the class that has the 99th percentile, milliseconds; 0 without
    samples. In the class without an end: one more than the last bound.
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


class _Rate(NamedTuple):
    """The trigger of a rate, parts in a million."""

    name: str
    bound: int
    needed: int
    required: bool

    def of(self, samples: Samples, reporters: Sequence[Samples], heard: int) -> Trigger:
        """With what was counted. `samples` are all, those of `reporters` among them."""

        limit = Bound(self.bound, self.needed)
        breach = breach_of(_own(samples, reporters), reporters, heard, limit)
        name, bound, needed, required = self
        return Trigger(name, _ppm(*samples), bound, samples[1], needed, required, breach)


def _p99(side: Side, bound: int, needed: int) -> Trigger:
    """Returns the trigger of latencies: above its bound when more than one call of a hundred is."""

    timed = sum(side.latencies)
    told = [(each.slow, each.timed) for each in side.reporters.values()]
    own = _own((slower_than(side.latencies, bound), timed), told)
    heard = sum(1 for _, total in told if total)
    limit = Bound(MILLION // 100, needed)
    breach = breach_of(own, [weighed(*each, needed) for each in told], heard, limit)
    return Trigger("p99", p99_ms(side), bound, timed, needed, required=False, breach=breach)


def _own(samples: Samples, reporters: Sequence[Samples]) -> Samples:
    """Returns the samples that no reporter said."""
    bad, total = samples
    return bad - sum(each[0] for each in reporters), total - sum(each[1] for each in reporters)


def _ppm(part: int, whole: int) -> int:
    """Returns parts in a million, rounded up: a rate just above its bound is above it."""
    return -(-part * MILLION // whole) if whole else 0
