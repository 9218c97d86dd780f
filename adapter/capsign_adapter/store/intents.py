"""The ledger of intents in tables: fetches the rows that a decision needs, writes what was decided,
and deletes rows older than the retention.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from capsign_wire.adapter.v1 import admin_pb2
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.model.intents import Committed, Draft, Stored, all_new
from capsign_adapter.model.lifecycle import IntentEvent, IntentState, intent_state
from capsign_adapter.store import ledger, log
from capsign_adapter.store.transaction import Head, Reader, Row, Table, Transaction

HANDLES_KEPT_MS = 30 * 24 * 3_600_000
"""What is kept of a single handle, the counter of its uses and its revocation, is deleted this long
after the watermark passed the last change of it, milliseconds; no handle lives nearly as long.
"""

MAX_LOOKUP = 256
"""Intents fetched by one statement: keeps within SQLite's limit on parameters."""

_INTENTS = Table(
    "intents",
    (
        ("intent_id", "blob"),
        ("workload_id", "int"),
        ("fingerprint", "blob"),
        ("grant_name", "text"),
        ("state", "int"),
        ("result", "blob"),
        ("leaf_index", "int"),
    ),
)


_STATES = {event: int(intent_state(event)) for event in IntentEvent}
"""The stored state after each event."""


class RowExistsError(Exception):
    """An intent of a plain batch was not new: plan the batch row by row."""


def commit_plain(
    tx: Transaction,
    head: Head,
    drafts: Sequence[Draft],
    hashes: Sequence[bytes],
    workloads: Mapping[str, int],
    now_ms: int,
) -> list[Committed]:
    """Commit drafts in the common case that every intent is new: the unique key decides, and
    nothing is looked up first.

    Raises RowExistsError if one was not new; the transaction must be rolled back then.
    """
    floor = ledger.floor_of(head.watermark_ms)
    first = head.tree_size
    rows: list[Row] = [
        (
            draft.intent_id,
            workloads[draft.workload],
            draft.fingerprint,
            draft.grant,
            _STATES[draft.event],
            draft.result,
            index,
        )
        for index, draft in enumerate(drafts, first)
    ]
    if min(rows)[0] < floor:
        raise RowExistsError
    log.sequence(tx, head, [draft.leaf for draft in drafts], now_ms, hashes)
    if tx.insert(_INTENTS, rows) != len(rows):
        raise RowExistsError
    return all_new(first, len(drafts))


def commit_planned(
    tx: Transaction, head: Head, drafts: Sequence[Draft], workloads: Mapping[str, int], now_ms: int
) -> list[Committed]:
    """Commit drafts in the general case: fetch the rows that exist, let `ledger.plan` decide, write
    that.
    """
    keys = {(draft.workload, draft.intent_id) for draft in drafts}
    found = fetch(tx, keys, workloads)
    serials = {draft.handle_serial for draft in drafts if draft.max_uses}
    plan = ledger.plan(drafts, found, _fetch_uses(tx, serials), head.watermark_ms, head.tree_size)
    rows: list[Row] = [
        (
            draft.intent_id,
            workloads[draft.workload],
            draft.fingerprint,
            draft.grant,
            int(state),
            result,
            index,
        )
        for draft, state, result, index in plan.inserts
    ]
    if rows and tx.insert(_INTENTS, rows) != len(rows):
        raise RuntimeError("a row that was absent under the writers' lock exists")
    for serial, used in plan.uses.items():
        tx.send(
            "INSERT INTO handle_uses (handle_serial, used, last_used_ms) VALUES (?, ?, ?)"
            " ON CONFLICT (handle_serial) DO UPDATE SET used = excluded.used, "
            "last_used_ms = excluded.last_used_ms",
            serial,
            used,
            now_ms,
        )
    log.sequence(tx, head, plan.leaves, now_ms)
    return plan.results


def resolve(
    tx: Transaction,
    head: Head,
    workload: str,
    workload_id: int,
    intent_id: bytes,
    grant: str,
    never_leaf: bytes,
    now_ms: int,
) -> Stored:
    """Returns the row of this intent; if there is none, inserts a NEVER row under the same unique
    key and returns that.
    """
    row = fetch(tx, {(workload, intent_id)}, {workload: workload_id}).get((workload, intent_id))
    if row is not None:
        return checked(row.stored, grant)
    if intent_id < ledger.floor_of(head.watermark_ms):
        raise FailureError(
            failures_pb2.REASON_INTENT_EXPIRED,
            "The ledger does not know any more what became of this intent.",
        )
    never = intent_state(IntentEvent.CLOSE)
    stored = Stored(never, grant, b"", log.sequence(tx, head, [never_leaf], now_ms))
    row_values = (
        intent_id,
        workload_id,
        b"",
        grant,
        int(never),
        b"",
        stored.leaf_index,
    )
    tx.insert(_INTENTS, [row_values])
    return stored


def checked(stored: Stored, grant: str) -> Stored:
    """Returns the row if it belongs to this grant. Raises FailureError INTENT_CONFLICT."""
    if stored.grant != grant:
        raise FailureError(
            failures_pb2.REASON_INTENT_CONFLICT,
            "The intent was made under another grant.",
            field="intent_id",
        )
    return stored


def fetch(
    tx: Reader, keys: Iterable[ledger.IntentKey], workloads: Mapping[str, int]
) -> dict[ledger.IntentKey, ledger.LedgerRow]:
    """Returns the rows that exist among these intents. A workload without a number has none."""
    by_workload: dict[str, list[bytes]] = {}
    for workload, intent_id in keys:
        if workload in workloads:
            by_workload.setdefault(workload, []).append(intent_id)
    found = {}
    for workload, ids in by_workload.items():
        for at in range(0, len(ids), MAX_LOOKUP):
            chunk = ids[at : at + MAX_LOOKUP]
            # Padded to a power of two, so that few different statements exist and each is prepared
            # once.
            chunk += chunk[-1:] * ((1 << (len(chunk) - 1).bit_length()) - len(chunk))
            marks = ", ".join("?" * len(chunk))
            columns = "intent_id, fingerprint, state, grant_name, result, leaf_index"
            where = f"intent_id IN ({marks}) AND workload_id = ?"
            query = f"SELECT {columns} FROM intents WHERE {where}"  # noqa: S608 - question marks
            for intent_id, fingerprint, state, grant, result, index in tx.all(
                query, *chunk, workloads[workload]
            ):
                stored = Stored(IntentState(state), grant, bytes(result), index)
                found[workload, bytes(intent_id)] = ledger.LedgerRow(stored, bytes(fingerprint))
    return found


def _fetch_uses(tx: Reader, serials: Iterable[bytes]) -> dict[bytes, int]:
    used = {}
    for serial in serials:
        row = tx.one("SELECT used FROM handle_uses WHERE handle_serial = ?", serial)
        if row is not None:
            used[serial] = int(row[0])
    return used


def collect_garbage(tx: Transaction, head: Head, now_ms: int, retention_ms: int, limit: int) -> int:
    """Move the watermark and delete older rows, in one transaction.

    The watermark never moves back, so that a clock that does cannot make an id acceptable again
    whose row is gone.
    """
    # PostgreSQL 17 has no MAX of bytes
    newest = tx.one("SELECT intent_id FROM intents ORDER BY intent_id DESC LIMIT 1")
    head.watermark_ms = ledger.watermark_after(
        head.watermark_ms, bytes(newest[0]) if newest else None, now_ms, retention_ms
    )
    oldest = (
        "SELECT intent_id, workload_id FROM intents WHERE intent_id < ? ORDER BY intent_id, "
        "workload_id LIMIT ?"
    )
    gone = tx.run(
        f"DELETE FROM intents WHERE (intent_id, workload_id) IN ({oldest})",  # noqa: S608 - a constant
        ledger.floor_of(head.watermark_ms),
        limit,
    )
    ended_ms = head.watermark_ms - HANDLES_KEPT_MS
    tx.send("DELETE FROM handle_uses WHERE last_used_ms < ?", ended_ms)
    tx.send(
        "DELETE FROM revocations WHERE kind = ? AND at_ms < ?",
        int(admin_pb2.REVOCATION_KIND_HANDLE),
        ended_ms,
    )
    return gone
