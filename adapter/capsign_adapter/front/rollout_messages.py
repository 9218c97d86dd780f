"""Rollouts as they are shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from capsign_evidence.leaf_kinds import Act
from capsign_evidence.rollout_leaf import SideFigures
from capsign_wire.adapter.v1 import rollouts_pb2 as pb
from capsign_wire.types.v1 import algorithms_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from capsign_adapter.decide.readiness import Readiness
from capsign_adapter.decide.rollout_analysis import Trigger
from capsign_adapter.decide.rollout_samples import summary
from capsign_adapter.decide.rollout_steps import (
    JUDGED,
    World,
    measures_now,
    remaining_ms,
    verdict_now,
)
from capsign_adapter.model.key_readers import KeyReader
from capsign_adapter.model.lifecycle import RolloutStage
from capsign_adapter.model.rollouts import RolloutPlan, RolloutRow, RolloutStep, Side, SignsWith

MAX_MISSING = 64
"""Most readers that are named as missing."""


def rollout_of(row: RolloutRow, world: World, workloads: int, now_ms: int) -> pb.Rollout:
    """A rollout without `undoes` and `newest`."""
    judged = row.stage in JUDGED
    return pb.Rollout(
        id=row.id,
        tenant=row.tenant,
        key=row.key,
        number=row.number,
        before=_signs_with(row.before),
        after=_signs_with(row.after),
        stage=_stage(row.stage),
        step=row.step,
        pace=cast(pb.RolloutPace.ValueType, int(row.pace)),
        revision=row.revision,
        started_by=row.started_by,
        started_at=_time(row.started_ms),
        stage_since=_time(row.stage_since_ms),
        remaining_ms=0 if row.is_final else remaining_ms(row, world, now_ms),
        new_side=_side(row.figures.after),
        old_side=_side(row.figures.before),
        triggers=[_trigger(each) for each in measures_now(row)] if judged else [],
        verdict=cast(pb.RolloutVerdict.ValueType, int(verdict_now(row)) if judged else 0),
        plan=list(_plan(row.plan)),
        workloads_in=world.in_cohort,
        workloads=workloads,
        first_leaf=row.figures.first_leaf,
        through_leaf=row.figures.through_leaf,
    )


def readiness_of(row: RolloutRow, world: World, readiness: Readiness) -> pb.RolloutReadiness:
    """Who has the public keys of the version that a rollout leads to."""
    version = world.version(row.after.version)
    shown = pb.RolloutReadiness(
        required=row.plan.readiness_required,
        fetched=len(readiness.fetched),
        missing=len(readiness.missing),
        missing_readers=[_reader(each) for each in readiness.missing[:MAX_MISSING]],
        anonymous_fetches=readiness.anonymous_fetches,
    )
    if version is not None and version.published_ms:
        shown.visible_since.FromMilliseconds(version.published_ms)
    return shown


def _reader(reader: KeyReader) -> pb.KeyReader:
    return pb.KeyReader(
        grant=reader.grant,
        workload=reader.workload,
        version=reader.version,
        sequence=reader.sequence,
        fetched_at=_time(reader.fetched_ms),
    )


def step_of(step: RolloutStep) -> pb.RolloutStep:
    """A change of a rollout."""
    return pb.RolloutStep(
        revision=step.revision,
        act=Act(step.act).name.removeprefix("ROLLOUT_").lower().replace("_", "-"),
        stage=_stage(step.stage),
        step=step.step,
        actor=step.actor,
        at=_time(step.at_ms),
        epoch=step.epoch,
        leaf_index=step.leaf_index,
        after=_side(step.figures.after),
        before=_side(step.figures.before),
    )


def _plan(plan: RolloutPlan) -> Iterator[pb.RolloutPlanStage]:
    yield pb.RolloutPlanStage(stage=pb.ROLLOUT_STAGE_PUBLISH)
    yield pb.RolloutPlanStage(stage=pb.ROLLOUT_STAGE_PROPAGATE, bake_ms=plan.propagation_ms)
    for step in plan.canary:
        canary = pb.ROLLOUT_STAGE_CANARY
        yield pb.RolloutPlanStage(stage=canary, percent=step.percent, bake_ms=step.bake_ms)
    if plan.dual_sign_ms:
        yield pb.RolloutPlanStage(stage=pb.ROLLOUT_STAGE_DUAL_SIGN, bake_ms=plan.dual_sign_ms)
    yield pb.RolloutPlanStage(stage=pb.ROLLOUT_STAGE_PROMOTE, bake_ms=plan.promote_ms)
    yield pb.RolloutPlanStage(stage=pb.ROLLOUT_STAGE_RETIRE, bake_ms=plan.retire_ms)


def _trigger(trigger: Trigger) -> pb.RolloutTrigger:
    return pb.RolloutTrigger(
        name=trigger.name,
        value=trigger.value,
        bound=trigger.bound,
        samples=trigger.samples,
        needed=trigger.needed,
        breached=trigger.is_breached,
        is_time=trigger.name == "p99",
        doubtful=trigger.is_doubtful,
    )


def _side(side: Side) -> pb.RolloutSide:
    figures: SideFigures = summary(side)
    return pb.RolloutSide(
        signed=figures.signed,
        refused=figures.refused,
        unanswered=figures.unanswered,
        verified=figures.verified,
        verify_failed=figures.verify_failed,
        timed=figures.timed,
        p99_ms=figures.p99_ms,
    )


def _signs_with(side: SignsWith) -> pb.SignsWith:
    algorithm = algorithms_pb2.Algorithm.ValueType(side.algorithm)
    return pb.SignsWith(version=side.version, algorithm=algorithm)


def _stage(stage: RolloutStage) -> pb.RolloutStage.ValueType:
    return cast(pb.RolloutStage.ValueType, int(stage))


def _time(ms: int) -> Timestamp:
    made = Timestamp()
    made.FromMilliseconds(ms)
    return made
