"""8. Release: only what this commit inserted, or what an earlier one stored (I4, I5).

The answer is made here and nowhere else, from what the ledger said of each item.
"""

from __future__ import annotations

from capsign_wire.adapter.v1 import signing_pb2 as pb
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2, signing_pb2

from capsign_adapter.model.intents import Committed, Stored, Verdict
from capsign_adapter.model.lifecycle import IntentState
from capsign_adapter.sign.batch import Batch, Group, Item
from capsign_adapter.sign.intent_time import too_old
from capsign_adapter.store.stored_result import refusal_of, signatures_of, signed_by_of


def answer(batch: Batch) -> pb.SignResponse:
    """What the caller hears of a batch."""
    response = pb.SignResponse(
        batch_id=batch.request.batch_id, revocation_epoch=batch.snapshot.epoch
    )
    for group in batch.groups:
        told = _Told(response.groups.add(), group)
        add = told.group.items.add
        for item in group.items:
            committed = item.committed
            if committed is None:
                _fail(add(), item)
            elif committed.verdict is Verdict.NEW:
                slot = add(leaf_index=committed.leaf_index)
                if item.signatures:
                    for key, value in enumerate(item.signatures):
                        slot.signatures.add(value=value, key=key)
                else:
                    _fail(slot, item)
            elif committed.stored is not None:
                _repeat(add(), item, committed.stored, told)
            else:
                _refuse(add(), item, committed, batch.now_ms)
    return response


class _Told:
    """A group of the answer, and the places of what its signatures were made under."""

    __slots__ = ("_places", "group")

    def __init__(self, group: signing_pb2.SignedGroup, decided: Group) -> None:
        self.group = group
        keys = decided.signable.keys if decided.signable is not None else ()
        for key in keys:
            group.signed_by.add().CopyFrom(key.signed_by)
        self._places = {key.stored: place for place, key in enumerate(keys)}

    def place_of(self, under: bytes) -> int:
        """Where the group says this, which a stored signature was made under."""
        place = self._places.setdefault(under, len(self._places))
        if place == len(self.group.signed_by):
            self.group.signed_by.add().CopyFrom(signed_by_of(under))
        return place


def _repeat(slot: signing_pb2.SignedItem, item: Item, stored: Stored, told: _Told) -> None:
    """The intent was there: its stored bytes, if what is decided now lets them leave."""
    if stored.state is not IntentState.DONE:
        slot.failure.CopyFrom(refusal_of(stored.result))
    elif item.signatures:
        for under, value in signatures_of(stored.result):
            slot.signatures.add(value=value, key=told.place_of(under))
    else:
        assert item.failure is not None
        error = signed_before(FailureError.from_item(item.failure))
        slot.failure.CopyFrom(error.to_item())
    slot.leaf_index = stored.leaf_index


def _refuse(slot: signing_pb2.SignedItem, item: Item, committed: Committed, now_ms: int) -> None:
    """The ledger refuses the intent."""
    why = "The ledger does not take this intent."
    if committed.reason == failures_pb2.REASON_INTENT_EXPIRED:
        why = too_old(item.asked.intent_id, now_ms)
    slot.leaf_index = committed.leaf_index
    item.failure = FailureError(committed.reason, why).to_item()
    _fail(slot, item)


def _fail(slot: signing_pb2.SignedItem, item: Item) -> None:
    """An item that an earlier attempt signed is not said not to have happened."""
    failure = item.failure
    assert failure is not None
    if item.signed_before and _outcome(failure) != failures_pb2.OUTCOME_UNKNOWN:
        failure = signed_before(FailureError.from_item(failure)).to_item()
    slot.failure.CopyFrom(failure)


def stored_group(stored: Stored) -> signing_pb2.SignedGroup:
    """A group of one item, with the signatures of a row that is done."""
    group = signing_pb2.SignedGroup()
    item = group.items.add(leaf_index=stored.leaf_index)
    for key, (under, value) in enumerate(signatures_of(stored.result)):
        group.signed_by.add().CopyFrom(signed_by_of(under))
        item.signatures.add(value=value, key=key)
    return group


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
