"""Versions of the policy in tables: what each act does inside its transaction.

The functions that change something take transaction and head, so that an approval can run them in
its own transaction.
"""

from __future__ import annotations

from collections.abc import Callable

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.model.lifecycle import POLICY, PolicyEvent, PolicyState
from capsign_adapter.model.policies import PolicyDraft, PolicyVersionRow, moved, proposed
from capsign_adapter.store import log
from capsign_adapter.store.interfaces.policies import MAX_PROPOSED
from capsign_adapter.store.transaction import Head, Reader, Row, Transaction

_COLUMNS = "version, digest, base, state, proposer, proposed_ms, decided_by, decided_ms, until_ms"
_SELECT = f"SELECT {_COLUMNS} FROM policies"  # noqa: S608 - a constant


def _row(found: Row) -> PolicyVersionRow:
    version, digest, base, state, *rest = found
    return PolicyVersionRow(version, bytes(digest), base, PolicyState(state), *rest)


def in_force(tx: Reader) -> PolicyVersionRow | None:
    """The version in force."""
    found = tx.one(f"{_SELECT} WHERE state = 2")  # the condition of its index
    return _row(found) if found else None


def listed(tx: Reader, before: int, limit: int) -> list[PolicyVersionRow]:
    """Newest first, below `before` (0: all)."""
    found = tx.all(
        f"{_SELECT} WHERE version < ? OR ? = 0 ORDER BY version DESC LIMIT ?",
        before,
        before,
        limit,
    )
    return [_row(each) for each in found]


def one(tx: Reader, version: int) -> PolicyVersionRow | None:
    """That version."""
    found = tx.one(f"{_SELECT} WHERE version = ?", version)
    return _row(found) if found else None


def document(tx: Reader, version: int) -> bytes | None:
    """The document of that version."""
    found = tx.one("SELECT document FROM policies WHERE version = ?", version)
    return bytes(found[0]) if found else None


def first(
    tx: Transaction, head: Head, draft: PolicyDraft, leaf: Callable[[int], bytes], now_ms: int
) -> PolicyVersionRow:
    """Version 1 in force, if there is none."""
    there = in_force(tx)
    if there is not None:
        return there
    row = proposed(1, draft, now_ms)
    _insert(tx, row, draft.document)
    applied = moved(row, PolicyEvent.APPLY, draft.proposer, now_ms)
    _update(tx, applied)
    head.epoch += 1
    log.sequence(tx, head, [leaf(head.epoch)], now_ms)
    return applied


def propose(
    tx: Transaction,
    head: Head,
    draft: PolicyDraft,
    leaf: Callable[[PolicyVersionRow], bytes],
    now_ms: int,
) -> PolicyVersionRow:
    """The next version, which waits."""
    _demand_base(tx, draft.base)
    waiting = tx.one("SELECT COUNT(*) FROM policies WHERE state = ?", int(POLICY.initial))
    if waiting and waiting[0] >= MAX_PROPOSED:
        detail = (
            f"{MAX_PROPOSED} versions of the policy wait to be approved. Have some approved or "
            "rejected first."
        )
        raise FailureError(failures_pb2.REASON_OVERLOADED, detail, retry_after_ms=60_000)
    newest = tx.one("SELECT MAX(version) FROM policies")
    row = proposed(1 + ((newest and newest[0]) or 0), draft, now_ms)
    _insert(tx, row, draft.document)
    log.sequence(tx, head, [leaf(row)], now_ms)
    return row


def apply(
    tx: Transaction,
    head: Head,
    version: int,
    by: str,
    leaf: Callable[[PolicyVersionRow, int], bytes],
    now_ms: int,
) -> tuple[int, int]:
    """Put a version in force, and raise the epoch; what was in force and what waits make way."""
    applied = moved(known(tx, version), PolicyEvent.APPLY, by, now_ms)
    before = _demand_base(tx, applied.base)
    if before is not None:
        _update(tx, moved(before, PolicyEvent.SUPERSEDE, by, now_ms))
    _update(tx, applied)
    waiting = tx.all(f"{_SELECT} WHERE state = ?", int(POLICY.initial))
    for each in waiting:
        _update(tx, moved(_row(each), PolicyEvent.OVERTAKE, by, now_ms))
    head.epoch += 1
    return head.epoch, log.sequence(tx, head, [leaf(applied, head.epoch)], now_ms)


def end(
    tx: Transaction,
    head: Head,
    version: int,
    event: PolicyEvent,
    by: str,
    leaf: Callable[[PolicyVersionRow], bytes],
    now_ms: int,
) -> int:
    """A version that does not come into force."""
    ended = moved(known(tx, version), event, by, now_ms)
    _update(tx, ended)
    return log.sequence(tx, head, [leaf(ended)], now_ms)


def known(tx: Reader, version: int) -> PolicyVersionRow:
    """That version. Raises FailureError NOT_FOUND."""
    found = one(tx, version)
    if found is None:
        detail = f"There is no version {version} of the policy."
        raise FailureError(failures_pb2.REASON_NOT_FOUND, detail, field="version")
    return found


def _demand_base(tx: Reader, base: int) -> PolicyVersionRow | None:
    """What is in force, if that is `base`. Raises FailureError POLICY_STALE."""
    there = in_force(tx)
    if (there.version if there else 0) != base:
        now = f"version {there.version} is" if there else "none is"
        detail = (
            f"It was made against version {base} of the policy, and {now} in force by now. Compare "
            "it with that one, and propose it again."
        )
        raise FailureError(failures_pb2.REASON_POLICY_STALE, detail)
    return there


def _insert(tx: Transaction, row: PolicyVersionRow, text: bytes) -> None:
    tx.send(
        f"INSERT INTO policies ({_COLUMNS}, document) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - a constant
        row.version,
        row.digest,
        row.base,
        int(row.state),
        row.proposer,
        row.proposed_ms,
        row.decided_by,
        row.decided_ms,
        row.until_ms,
        text,
    )


def _update(tx: Transaction, row: PolicyVersionRow) -> None:
    tx.send(
        "UPDATE policies SET state = ?, decided_by = ?, decided_ms = ?, until_ms = ?"
        " WHERE version = ?",
        int(row.state),
        row.decided_by,
        row.decided_ms,
        row.until_ms,
        row.version,
    )
