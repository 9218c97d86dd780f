"""8. Release: only what this commit inserted, or what an earlier one stored (I4, I5).

The answer is made here and nowhere else, from what the ledger said of each item.
"""

from __future__ import annotations

from capsign_wire.adapter.v1 import signing_pb2 as pb
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.model.intents import Committed, Stored, Verdict
from capsign_adapter.model.lifecycle import IntentState
from capsign_adapter.sign.batch import Batch, Item
from capsign_adapter.sign.intent_time import too_old


def answer(batch: Batch) -> pb.SignResponse:
    """What the caller hears of a batch."""
    response = pb.SignResponse(
        batch_id=batch.request.batch_id, revocation_epoch=batch.snapshot.epoch
    )
    for group in batch.groups:
        told = response.groups.add()
        prefix = b""
        if group.signable is not None:
            told.signed_by.CopyFrom(group.signable.signed_by)
            prefix = group.signable.stored_prefix
        add = told.items.add
        for item in group.items:
            committed = item.committed
            if committed is None:
                _fail(add(), item, item.failure)
            elif committed.verdict is Verdict.NEW:
                slot = add(leaf_index=committed.leaf_index)
                if item.signature:
                    slot.signature = item.signature
                else:
                    _fail(slot, item, item.failure)
            elif committed.stored is not None:
                _repeat(add(), item, committed.stored, prefix)
            else:
                _refuse(add(), item, committed, batch.now_ms)
    return response


def _repeat(slot: pb.SignedItem, item: Item, stored: Stored, prefix: bytes) -> None:
    """The intent was there: its stored bytes, if what is decided now lets them leave."""
    if stored.state is not IntentState.DONE:
        slot.failure.MergeFromString(stored.result)
    elif item.signature:
        slot.MergeFromString(stored.result.removeprefix(prefix))
    else:
        assert item.failure is not None
        error = signed_before(FailureError.from_item(item.failure))
        slot.failure.CopyFrom(error.to_item())
    slot.leaf_index = stored.leaf_index


def _refuse(slot: pb.SignedItem, item: Item, committed: Committed, now_ms: int) -> None:
    """The ledger refuses the intent."""
    why = "The ledger does not take this intent."
    if committed.reason == failures_pb2.REASON_INTENT_EXPIRED:
        why = too_old(item.asked.intent_id, now_ms)
    slot.leaf_index = committed.leaf_index
    _fail(slot, item, FailureError(committed.reason, why).to_item())


def _fail(slot: pb.SignedItem, item: Item, failure: failures_pb2.Failure | None) -> None:
    """An item that an earlier attempt signed is not said not to have happened."""
    assert failure is not None
    if item.signed_before and _outcome(failure) != failures_pb2.OUTCOME_UNKNOWN:
        failure = signed_before(FailureError.from_item(failure)).to_item()
    slot.failure.CopyFrom(failure)


def signed_before(now: FailureError) -> FailureError:
    """What is in the ledger does not leave under what no longer allows it (I2, I6). But it was
    signed: not "refused".
    """
    detail = f"Signed before; now {now.row.name}."
    return FailureError(failures_pb2.REASON_COMMIT_UNKNOWN, detail)


def fail_rest(batch: Batch, error: FailureError) -> None:
    """What was committed before this is done and goes out; all that was not is told why.

    A refusal that is not in the ledger is none: the same intent may still be signed (I5).
    """
    refused = failures_pb2.OUTCOME_REFUSED
    rest = [
        item
        for item in batch.items
        if item.committed is None and (item.failure is None or _outcome(item.failure) == refused)
    ]
    batch.fail(rest, error)


def _outcome(failure: failures_pb2.Failure) -> failures_pb2.Outcome.ValueType:
    return FailureError.from_item(failure).outcome
