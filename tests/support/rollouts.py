"""Rollouts and key versions for tests."""

from __future__ import annotations

from dataclasses import replace

from capsign_adapter.decide.rollout_steps import World
from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_adapter.model.lifecycle import RolloutStage
from capsign_adapter.model.rollouts import (
    CanaryStep,
    RolloutPlan,
    RolloutRow,
    SignsWith,
    Triggers,
)
from capsign_wire.types.v1 import algorithms_pb2, signing_pb2

NOW = 1_790_000_000_000
OLGA = "spiffe://capsign.test/people/olga"
ES256 = algorithms_pb2.ALGORITHM_ES256
ES384 = algorithms_pb2.ALGORITHM_ES384
ML_DSA = algorithms_pb2.ALGORITHM_ML_DSA_65
ED25519 = algorithms_pb2.ALGORITHM_ED25519
PRE, ACTIVE = signing_pb2.KEY_STATE_PRE_ACTIVATION, signing_pb2.KEY_STATE_ACTIVE
DEACTIVATED = signing_pb2.KEY_STATE_DEACTIVATED

TRIGGERS = Triggers(
    error_ppm=10_000,
    verify_failure_ppm=1_000,
    p99_ms=500,
    min_samples=100,
    min_verifications=20,
)
PLAN = RolloutPlan(
    propagation_ms=900_000,
    canary=(CanaryStep(1, 60_000), CanaryStep(10, 60_000), CanaryStep(50, 60_000)),
    dual_sign_ms=120_000,
    promote_ms=120_000,
    retire_ms=3_600_000,
    triggers=TRIGGERS,
)


def rollout(stage: RolloutStage = RolloutStage.PUBLISH, **changes: object) -> RolloutRow:
    """From version 1 to version 2 of demo/orders, in that stage since NOW."""
    made = RolloutRow(
        id=bytes.fromhex("018bcfe5680070008000000000000003"),
        tenant="demo",
        key="orders",
        before=SignsWith(1),
        after=SignsWith(2),
        plan=PLAN,
        started_by=OLGA,
        started_ms=NOW,
        number=1,
        stage=stage,
        stage_since_ms=NOW,
    )
    return replace(made, **changes)


def version(number: int, state: int = ACTIVE, **changes: object) -> KeyVersionRow:
    """That version of demo/orders, published."""
    made = KeyVersionRow(
        tenant="demo",
        key="orders",
        version=number,
        state=state,
        algorithms=(ED25519, ES256, ML_DSA),
        label=f"capsign/demo/orders/{number}",
        check_value=b"8 bytes!",
        created_ms=NOW,
        activated_ms=NOW if state != PRE else 0,
        activation_epoch=number,
        published_ms=NOW,
    )
    return replace(made, **changes)


def world(*versions: KeyVersionRow, in_cohort: int = 5) -> World:
    """With these versions, newest first; both sign if none is given."""
    return World(versions or (version(2), version(1)), in_cohort)
