"""Decides what the ledger does with a batch, given the rows that exist. Pure.

An intent moves only from absent (I5), so a decision depends on the rows, the watermark and the use
counters alone. Both engines use this; they differ only in how rows are fetched and inserted.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.model.intents import Committed, Draft, Stored, Verdict
from capsign_adapter.model.lifecycle import IntentEvent, IntentState, intent_state
from capsign_adapter.store.stored_result import of_refusal

IntentKey = tuple[str, bytes]
"""Workload and intent id: what makes an intent unique."""


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """A row of the ledger, with the fields that a draft is compared to."""

    stored: Stored
    fingerprint: bytes


@dataclass(slots=True)
class Plan:
    """What to write, and what to answer once it is durable. Leaf indices count from the first leaf
    of this transaction.
    """

    results: list[Committed] = field(default_factory=list)
    inserts: list[tuple[Draft, IntentState, bytes, int]] = field(default_factory=list)
    """Draft, state and result as they are to be stored, leaf index."""
    leaves: list[bytes] = field(default_factory=list)
    uses: dict[bytes, int] = field(default_factory=dict)
    """New value of each use counter that moved."""


def floor_of(watermark_ms: int) -> bytes:
    """Returns six bytes: ids that sort below them are older than that time, since an id begins with
    its time.
    """
    return watermark_ms.to_bytes(6, "big")


def watermark_after(watermark_ms: int, newest: bytes | None, now_ms: int, retention_ms: int) -> int:
    """Returns the watermark after a deletion at `now_ms`, if `newest` is the newest id that has a
    row. It never moves back.

    One replica's clock alone must not move it: a clock that is a day ahead would have every intent
    of every replica refused, and correcting it would not undo that. The time of the newest row
    bounds it.
    """
    if newest is None:
        return watermark_ms
    return max(watermark_ms, min(now_ms, int.from_bytes(newest[:6], "big")) - retention_ms)


def is_plain(drafts: Sequence[Draft]) -> bool:
    """Whether the unique key alone can decide: the batch repeats no intent, has none that is late,
    and counts no uses.
    """
    if len(drafts) == 1:
        return not drafts[0].max_uses and not drafts[0].late
    if any(draft.max_uses or draft.late for draft in drafts):
        return False
    return len({(draft.workload, draft.intent_id) for draft in drafts}) == len(drafts)


def plan(
    drafts: Sequence[Draft],
    found: Mapping[IntentKey, LedgerRow],
    used: Mapping[bytes, int],
    watermark_ms: int,
    first_index: int,
) -> Plan:
    """Decide the drafts of a batch in order; a later draft sees the effect of an earlier one.

    A row that exists is answered even if it is older than the watermark. An old id without a row is
    refused, for it may have been done and deleted. So is one that is late by its replica's clock;
    this does not move the watermark.
    """
    known = dict(found)
    floor = floor_of(watermark_ms)
    made = Plan()
    for draft in drafts:
        key = (draft.workload, draft.intent_id)
        row = known.get(key)
        if row is not None:
            _answer_known(made, draft, row, first_index)
        elif draft.late or draft.intent_id < floor:
            _refuse(made, draft, failures_pb2.REASON_INTENT_EXPIRED, first_index)
        elif draft.event is IntentEvent.SIGN and not _count_use(made, draft, used):
            # Final for this id (a refusal is), so it gets a row: asked again, it is told the same.
            index = _refuse(made, draft, failures_pb2.REASON_USES_EXHAUSTED, first_index)
            result = of_refusal(FailureError(failures_pb2.REASON_USES_EXHAUSTED).to_item())
            known[key] = _insert(made, draft, IntentEvent.REFUSE, result, index)
        else:
            index = first_index + len(made.leaves)
            made.leaves.append(draft.leaf)
            made.results.append(Committed(Verdict.NEW, index))
            known[key] = _insert(made, draft, draft.event, draft.result, index)
    return made


def _answer_known(made: Plan, draft: Draft, row: LedgerRow, first_index: int) -> None:
    if row.stored.state is IntentState.NEVER:
        _refuse(made, draft, failures_pb2.REASON_INTENT_NEVER, first_index)
    elif same(row.fingerprint, draft.fingerprint) and row.stored.grant == draft.grant:
        made.results.append(Committed(Verdict.REPLAY, row.stored.leaf_index, row.stored))
    else:
        _refuse(made, draft, failures_pb2.REASON_INTENT_CONFLICT, first_index)


def same(left: bytes, right: bytes) -> bool:
    """Whether two fingerprints are equal, compared in constant time."""
    return hmac.compare_digest(left, right)


def _refuse(
    made: Plan, draft: Draft, reason: failures_pb2.Reason.ValueType, first_index: int
) -> int:
    index = first_index + len(made.leaves)
    made.leaves.append(draft.refusal_leaf(reason))
    made.results.append(Committed(Verdict.REFUSED, index, reason=reason))
    return index


def _insert(made: Plan, draft: Draft, event: IntentEvent, result: bytes, index: int) -> LedgerRow:
    state = intent_state(event)
    made.inserts.append((draft, state, result, index))
    return LedgerRow(Stored(state, draft.grant, result, index), draft.fingerprint)


def _count_use(made: Plan, draft: Draft, used: Mapping[bytes, int]) -> bool:
    if not draft.max_uses:
        return True
    count = made.uses.get(draft.handle_serial, used.get(draft.handle_serial, 0))
    if count >= draft.max_uses:
        return False
    made.uses[draft.handle_serial] = count + 1
    return True
