"""Rollouts in their table: what each act does inside its transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.model.lifecycle import RolloutPace, RolloutStage
from capsign_adapter.model.rollouts import (
    Figures,
    RolloutMove,
    RolloutPlan,
    RolloutRow,
    RolloutStep,
    SignsWith,
    moved,
)
from capsign_adapter.store import key_versions, log, rollout_history
from capsign_adapter.store.interfaces.rollouts import MAX_ROLLOUTS
from capsign_adapter.store.transaction import Head, Reader, Row, Transaction

_COLUMNS = (
    "id, tenant, key_name, number, before_version, before_algorithm, after_version, "
    "after_algorithm, stages, started_by, started_ms, revision, stage, step, pace, "
    "stage_since_ms, paused_ms, figures, previous"
)
_SELECT = f"SELECT {_COLUMNS} FROM rollouts"  # noqa: S608 - a constant

Leaf = Callable[[RolloutRow, int], bytes]
"""The entry of a change, given the row after it and the epoch."""


def listed(tx: Reader, tenant: str, key: str) -> list[RolloutRow]:
    """Newest first."""
    found = tx.all(
        f"{_SELECT} WHERE (tenant = ? OR ? = '') AND (key_name = ? OR ? = '')"
        " ORDER BY started_ms DESC, number DESC LIMIT ?",
        tenant,
        tenant,
        key,
        key,
        MAX_ROLLOUTS,
    )
    return [_row(each) for each in found]


def one(tx: Reader, tenant: str, key: str, number: int) -> RolloutRow | None:
    """That one of the key; 0: its newest."""
    found = tx.one(
        f"{_SELECT} WHERE tenant = ? AND key_name = ? AND (number = ? OR ? = 0)"
        " ORDER BY number DESC LIMIT 1",
        tenant,
        key,
        number,
        number,
    )
    return _row(found) if found else None


def in_force(tx: Reader) -> list[RolloutRow]:
    """Under way (below 7, the condition of its index), or done with another algorithm."""
    found = tx.all(
        f"{_SELECT} WHERE stage < 7 OR (stage = 7 AND after_algorithm > 0) ORDER BY number"
    )
    return [_row(each) for each in found]


def start(
    tx: Transaction,
    head: Head,
    row: RolloutRow,
    act: int,
    leaf: Leaf,
    now_ms: int,
    overtakes: RolloutMove | None,
) -> tuple[RolloutRow, int]:
    """Add one under the next number of its key. The index keeps a second one under way out."""
    if overtakes is not None:
        move(tx, head, overtakes, now_ms)
    newest = one(tx, row.tenant, row.key, 0)
    if newest is not None and not newest.is_final:
        detail = f"Rollout {newest.number} of {row.tenant}/{row.key} is under way."
        raise FailureError(failures_pb2.REASON_ROLLOUT_CONFLICT, detail)
    number = 1 + (newest.number if newest else 0)
    head.epoch += 1
    row = replace(row, number=number, stage_since_ms=now_ms, started_ms=now_ms)
    index = log.sequence(tx, head, [leaf(row, head.epoch)], now_ms)
    row = replace(row, figures=Figures(head.tree_size, head.tree_size))
    _insert(tx, row)
    _remember(tx, row, act, row.started_by, (now_ms, head.epoch, index), Figures())
    return row, head.epoch


def move(tx: Transaction, head: Head, wanted: RolloutMove, now_ms: int) -> tuple[RolloutRow, int]:
    """Move one on if nobody changed it, with the key version that belongs to the step."""
    seen = wanted.row
    current = one(tx, seen.tenant, seen.key, seen.number)
    if current is None or current.revision != seen.revision:
        name = f"{seen.tenant}/{seen.key}"
        detail = f"Rollout {seen.number} of {name} has moved on meanwhile."
        raise FailureError(failures_pb2.REASON_ROLLOUT_CONFLICT, detail)
    after = moved(current, wanted.event, now_ms)
    if wanted.version is None:
        head.epoch += 1
    else:
        key_versions.move(tx, head, *wanted.version, now_ms)
    index = log.sequence(tx, head, [wanted.leaf(after, head.epoch)], now_ms)
    if (after.stage, after.step) != (current.stage, current.step):
        after = replace(after, figures=Figures(head.tree_size, head.tree_size))
    _update(tx, after)
    at = (now_ms, head.epoch, index)
    _remember(tx, after, wanted.act, wanted.actor, at, seen.figures)
    return after, head.epoch


def tally(tx: Transaction, row: RolloutRow, figures: Figures) -> bool:
    """Keep the figures, if they go on from those that are there."""
    current = one(tx, row.tenant, row.key, row.number)
    if current is None or current.revision != row.revision:
        return False
    if current.figures.through_leaf != row.figures.through_leaf:
        return False
    _update(tx, replace(current, figures=figures))
    return True


def _insert(tx: Transaction, row: RolloutRow) -> None:
    marks = ", ".join("?" * len(_COLUMNS.split(",")))
    tx.send(
        f"INSERT INTO rollouts ({_COLUMNS}) VALUES ({marks})",  # noqa: S608 - question marks
        row.id,
        row.tenant,
        row.key,
        row.number,
        row.before.version,
        row.before.algorithm,
        row.after.version,
        row.after.algorithm,
        msgspec.json.encode(row.plan).decode(),
        row.started_by,
        row.started_ms,
        row.revision,
        int(row.stage),
        row.step,
        int(row.pace),
        row.stage_since_ms,
        row.paused_ms,
        rollout_history.encoded(row.figures),
        row.previous,
    )


def _update(tx: Transaction, row: RolloutRow) -> None:
    tx.send(
        "UPDATE rollouts SET revision = ?, stage = ?, step = ?, pace = ?, stage_since_ms = ?,"
        " paused_ms = ?, figures = ? WHERE id = ?",
        row.revision,
        int(row.stage),
        row.step,
        int(row.pace),
        row.stage_since_ms,
        row.paused_ms,
        rollout_history.encoded(row.figures),
        row.id,
    )


def _remember(
    tx: Transaction,
    row: RolloutRow,
    act: int,
    actor: str,
    at: tuple[int, int, int],
    figures: Figures,
) -> None:
    """Add the step to the history; `at` is time, epoch and leaf."""
    step = RolloutStep(
        row.id, row.revision, act, row.stage, row.step, row.pace, actor, *at, figures=figures
    )
    rollout_history.add(tx, step)


def _row(found: Row) -> RolloutRow:
    (rollout, tenant, key, number, *signs), rest = found[:8], found[8:]
    plan, by, started_ms, revision, stage, step, pace, since_ms, paused_ms, figures, previous = rest
    return RolloutRow(
        id=bytes(rollout),
        tenant=tenant,
        key=key,
        before=SignsWith(*signs[:2]),
        after=SignsWith(*signs[2:]),
        plan=msgspec.json.decode(plan, type=RolloutPlan),
        started_by=by,
        started_ms=started_ms,
        number=number,
        revision=revision,
        stage=RolloutStage(stage),
        step=step,
        pace=RolloutPace(pace),
        stage_since_ms=since_ms,
        paused_ms=paused_ms,
        figures=rollout_history.decoded(figures),
        previous=bytes(previous),
    )
