"""Proposals in their table. Each move is a leaf in the same transaction, and so is what it does."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide.approvals import check_count
from capsign_adapter.model.lifecycle import PROPOSAL, ProposalEvent, ProposalState
from capsign_adapter.model.proposals import ProposalRow, acknowledged, digest_of, moved
from capsign_adapter.store import log
from capsign_adapter.store.errors import EpochMovedError
from capsign_adapter.store.executors import Executors
from capsign_adapter.store.interfaces.proposals import Leaf, Move, Moved
from capsign_adapter.store.transaction import Head, Reader, Row, Transaction

_COLUMNS = (
    "id, act, target, digest, payload, proposer, created_ms, expires_ms, waits_ms, state, "
    "not_before_ms, decided_by, decided_ms, executed_ms, glass, acknowledged_by, acknowledged_ms"
)
_OPEN = ", ".join(str(int(state)) for state in PROPOSAL.moves if not PROPOSAL.is_final(state))
_WAITING = f"(state IN ({_OPEN}) OR (glass <> 0 AND acknowledged_by = ''))"
_STANDING = frozenset({ProposalEvent.APPROVE, ProposalEvent.EXECUTE, ProposalEvent.BREAK_GLASS})
"""Events before which it is seen that the digest still holds."""

_EXECUTING = frozenset({ProposalEvent.EXECUTE, ProposalEvent.BREAK_GLASS})


def listed(tx: Reader, *, waiting: bool, before: bytes, limit: int) -> list[ProposalRow]:
    """Newest first: the ids carry their time."""
    where = [_WAITING] if waiting else []
    parameters: list[object] = []
    if before:
        where.append("id < ?")
        parameters.append(before)
    clause = f"WHERE {' AND '.join(where)} " if where else ""
    sql = f"SELECT {_COLUMNS} FROM proposals {clause}ORDER BY id DESC LIMIT ?"  # noqa: S608 - constants
    return [_row(found) for found in tx.all(sql, *parameters, limit)]


def find(tx: Reader, proposal_id: bytes) -> ProposalRow | None:
    """The one of that id."""
    found = tx.one(f"SELECT {_COLUMNS} FROM proposals WHERE id = ?", proposal_id)  # noqa: S608 - a constant
    return _row(found) if found is not None else None


def add(
    tx: Transaction,
    head: Head,
    draft: ProposalRow,
    epoch: int,
    executors: Executors,
    leaf: Leaf,
    now_ms: int,
) -> Moved:
    """Record one with the digest of how things are now; or find the same one open already."""
    _demand_epoch(head, epoch)
    row = replace(draft, digest=digest_of(draft, executors.of(draft.act).state(tx, draft)))
    same = tx.one(
        f"SELECT {_COLUMNS} FROM proposals WHERE state IN ({_OPEN}) AND digest = ?",  # noqa: S608 - constants
        row.digest,
    )
    if same is not None:
        return Moved(_row(same), head.epoch, 0)
    waiting: Counter[str] = Counter()
    for proposer, count in tx.all(
        f"SELECT proposer, COUNT(*) FROM proposals WHERE state IN ({_OPEN}) GROUP BY proposer"  # noqa: S608 - a constant
    ):
        waiting[proposer] = count
    check_count(row.proposer, waiting)
    tx.send(
        f"INSERT INTO proposals ({_COLUMNS}) VALUES "  # noqa: S608 - a constant
        "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        row.id,
        row.act,
        row.target,
        row.digest,
        row.payload,
        row.proposer,
        row.created_ms,
        row.expires_ms,
        row.waits_ms,
        *_changing(row),
    )
    index = log.sequence(tx, head, [leaf(row, None, head.epoch)], now_ms)
    return Moved(row, head.epoch, index)


def move(tx: Transaction, head: Head, wanted: Move, executors: Executors, leaf: Leaf) -> Moved:
    """Do the events if the proposal is still where the caller saw it, and what they bring about."""
    _demand_epoch(head, wanted.epoch)
    row = _demand_same(tx, wanted.row)
    index = 0
    for event in wanted.events:
        row = moved(row, event, wanted.by, wanted.now_ms, glass=wanted.glass)
        if event in _STANDING:
            executors.demand_unchanged(tx, row)
        if event in _EXECUTING:
            executors.of(row.act).execute(tx, head, row, wanted.now_ms)
        index = log.sequence(tx, head, [leaf(row, event, head.epoch)], wanted.now_ms)
    _update(tx, row)
    return Moved(row, head.epoch, index)


def acknowledge(
    tx: Transaction, head: Head, seen: ProposalRow, by: str, epoch: int, leaf: Leaf, now_ms: int
) -> Moved:
    """Record who looked at what was done alone."""
    _demand_epoch(head, epoch)
    row = acknowledged(_demand_same(tx, seen), by, now_ms)
    _update(tx, row)
    index = log.sequence(tx, head, [leaf(row, None, head.epoch)], now_ms)
    return Moved(row, head.epoch, index)


def _demand_epoch(head: Head, epoch: int) -> None:
    if head.epoch != epoch:
        raise EpochMovedError


def _demand_same(tx: Reader, seen: ProposalRow) -> ProposalRow:
    current = find(tx, seen.id)
    if current != seen:
        raise FailureError(
            failures_pb2.REASON_ILLEGAL_TRANSITION,
            "Somebody else moved this proposal on meanwhile; look at it again.",
        )
    return seen


def _update(tx: Transaction, row: ProposalRow) -> None:
    tx.send(
        "UPDATE proposals SET state = ?, not_before_ms = ?, decided_by = ?, decided_ms = ?, "
        "executed_ms = ?, glass = ?, acknowledged_by = ?, acknowledged_ms = ? WHERE id = ?",
        *_changing(row),
        row.id,
    )


def _changing(row: ProposalRow) -> Row:
    return (
        int(row.state),
        row.not_before_ms,
        row.decided_by,
        row.decided_ms,
        row.executed_ms,
        row.glass,
        row.acknowledged_by,
        row.acknowledged_ms,
    )


def _row(found: Row) -> ProposalRow:
    proposal_id, act, target, digest, payload, proposer, created, expires, waits, state, *rest = (
        found
    )
    return ProposalRow(
        bytes(proposal_id),
        act,
        target,
        bytes(digest),
        bytes(payload),
        proposer,
        created,
        expires,
        waits,
        ProposalState(state),
        *rest,
    )
