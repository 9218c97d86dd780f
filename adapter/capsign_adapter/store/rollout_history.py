"""The steps of rollouts in their table."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from capsign_adapter.model.lifecycle import RolloutPace, RolloutStage
from capsign_adapter.model.rollouts import Figures, RolloutStep
from capsign_adapter.store.interfaces.rollouts import MAX_ROLLOUTS
from capsign_adapter.store.transaction import Reader, Row, Transaction

_COLUMNS = "rollout_id, revision, act, stage, step, pace, actor, at_ms, epoch, leaf_index, figures"


def steps(tx: Reader, rollout_id: bytes) -> list[RolloutStep]:
    """Oldest first."""
    found = tx.all(
        f"SELECT {_COLUMNS} FROM rollout_steps WHERE rollout_id = ? ORDER BY revision LIMIT ?",  # noqa: S608 - a constant
        rollout_id,
        MAX_ROLLOUTS,
    )
    return [_row(each) for each in found]


def add(tx: Transaction, step: RolloutStep) -> None:
    """One more. Of its figures it keeps the sums; who reported what is in the log."""
    figures = step.figures
    sums = replace(
        figures,
        after=replace(figures.after, reporters={}),
        before=replace(figures.before, reporters={}),
    )
    tx.send(
        f"INSERT INTO rollout_steps ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - a constant
        step.rollout,
        step.revision,
        step.act,
        int(step.stage),
        step.step,
        int(step.pace),
        step.actor,
        step.at_ms,
        step.epoch,
        step.leaf_index,
        encoded(sums),
    )


def encoded(figures: Figures) -> str:
    """Figures as they are stored: JSON."""
    return msgspec.json.encode(figures).decode()


def decoded(text: str) -> Figures:
    """What `encoded` was given."""
    return msgspec.json.decode(text, type=Figures)


def _row(found: Row) -> RolloutStep:
    rollout, revision, act, stage, step, pace, actor, at_ms, epoch, leaf_index, figures = found
    return RolloutStep(
        rollout=bytes(rollout),
        revision=revision,
        act=act,
        stage=RolloutStage(stage),
        step=step,
        pace=RolloutPace(pace),
        actor=actor,
        at_ms=at_ms,
        epoch=epoch,
        leaf_index=leaf_index,
        figures=decoded(figures),
    )
