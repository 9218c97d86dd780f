"""Checks the rollouts and rotations of a policy document, and resolves them to numbers."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise

from capsign_adapter.decide import durations
from capsign_adapter.decide.jwks import FETCHES_BEFORE_USE
from capsign_adapter.decide.policy import Rotation
from capsign_adapter.decide.policy_document import (
    PolicyDocument,
    RolloutsPart,
    RotationPart,
    TriggersPart,
)
from capsign_adapter.decide.policy_shape import Problem
from capsign_adapter.model.rollouts import CanaryStep, RolloutPlan, Triggers

DAY_MS = 24 * 3_600_000

MAX_STAGE_MS = 90 * DAY_MS
"""Longest stage of a rollout."""

MIN_PROPAGATION_MS = 1000 * FETCHES_BEFORE_USE
"""Shortest window in which new public keys are shown and do not sign: they are kept for a second at
least.
"""

MIN_ROTATION_MS, MAX_ROTATION_MS = 60_000, 3650 * DAY_MS
"""Shortest and longest time between rotations."""


def plan_of(part: RolloutsPart) -> RolloutPlan:
    """Returns stages in milliseconds, and triggers in parts in a million."""
    return RolloutPlan(
        propagation_ms=durations.to_millis(part.propagation),
        canary=tuple(
            CanaryStep(step.percent, durations.to_millis(step.bake)) for step in part.canary
        ),
        dual_sign_ms=durations.to_millis(part.dual_sign),
        promote_ms=durations.to_millis(part.promote),
        retire_ms=durations.to_millis(part.retire),
        triggers=_triggers(part.triggers),
        readiness_required=part.readiness == "required",
    )


def rotation_of(part: RotationPart | None) -> Rotation | None:
    """Returns when a key is rotated, in milliseconds; None if it is not rotated by itself."""
    if part is None:
        return None
    begin, end = (part.window.begin, part.window.end) if part.window else ("00:00", "00:00")
    return Rotation(
        durations.to_millis(part.every),
        durations.to_millis(part.jitter),
        _of_day(begin),
        _of_day(end),
    )


def problems(document: PolicyDocument) -> list[Problem]:
    """Returns what is wrong with rollouts and rotations, each with its path and its remedy."""
    return [*_of_rollouts(document.rollouts), *_of_rotations(document)]


def _of_rollouts(part: RolloutsPart) -> Iterator[Problem]:
    stages = {
        "dual_sign": part.dual_sign,
        "promote": part.promote,
        "retire": part.retire,
        "triggers.p99": part.triggers.p99,
        **{f"canary[{index}].bake": step.bake for index, step in enumerate(part.canary)},
    }
    for path, text in stages.items():
        yield from _out_of_range(f"rollouts.{path}", text, 0, MAX_STAGE_MS)
    window = part.propagation
    yield from _out_of_range("rollouts.propagation", window, MIN_PROPAGATION_MS, MAX_STAGE_MS)
    if any(one.percent >= other.percent for one, other in pairwise(part.canary)):
        yield Problem(
            "rollouts.canary", "A step has no more workloads than the one before.", "Let it grow."
        )


def _of_rotations(document: PolicyDocument) -> Iterator[Problem]:
    for index, key in enumerate(document.keys):
        path, rotation = f"keys[{index}].rotation", key.rotation
        if rotation is not None:
            yield from _out_of_range(
                f"{path}.every", rotation.every, MIN_ROTATION_MS, MAX_ROTATION_MS
            )
            yield from _out_of_range(f"{path}.jitter", rotation.jitter, 0, MAX_STAGE_MS)


def _out_of_range(path: str, text: str, least: int, most: int) -> Iterator[Problem]:
    if not least <= durations.to_millis(text) <= most:
        fix = f"Use {durations.to_text(least)} to {durations.to_text(most)}."
        yield Problem(path, f"{text} is out of range.", fix)


def _triggers(part: TriggersPart) -> Triggers:
    return Triggers(
        error_ppm=_ppm(part.error_rate),
        verify_failure_ppm=_ppm(part.verify_failure_rate),
        p99_ms=durations.to_millis(part.p99),
        min_samples=part.min_samples,
        min_verifications=part.min_verifications,
        verifications_required=part.verifications == "required",
    )


def _ppm(percent: str) -> int:
    return int(Decimal(percent.removesuffix("%")) * 10_000)


def _of_day(time: str) -> int:
    hours, minutes = time.split(":")
    return (int(hours) * 60 + int(minutes)) * 60_000
