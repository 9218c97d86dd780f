"""8. Release: makes the answer to a batch from the ledger's answer to each item, and from nothing
else. It has only what this commit inserted, or what an earlier one stored (I4, I5).
"""

from __future__ import annotations

from capsign_wire import logs
from capsign_wire.adapter.v1 import signing_pb2 as pb
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2, signing_pb2
from google.protobuf.message import DecodeError

from capsign_adapter.decide.capability import Capability
from capsign_adapter.decide.revoked import RevocationIndex, revoked_failure
from capsign_adapter.keys.result_seal import ResultSeal, SealBrokenError
from capsign_adapter.model.control import Revocation
from capsign_adapter.model.intents import Committed, Stored, Verdict
from capsign_adapter.model.lifecycle import IntentState
from capsign_adapter.sign.batch import Batch, Group, Item
from capsign_adapter.sign.intent_time import too_old
from capsign_adapter.store.stored_result import (
    StoredResultError,
    is_sealed,
    place_of,
    refusal_of,
    signatures_of,
    signed_by_of,
)

UNREADABLE = (StoredResultError, SealBrokenError, DecodeError)
"""What reading a stored result raises: another release wrote it, or it was changed since."""


def answer(batch: Batch) -> pb.SignResponse:
    """Returns the answer to a batch."""
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
                slot = add(leaf_index=committed.stored.leaf_index)
                try:
                    _repeat(slot, item, committed.stored, told, batch.snapshot.revoked)
                except UNREADABLE as error:
                    slot.ClearField("signatures")
                    slot.failure.CopyFrom(unreadable(committed.stored, error).to_item())
            else:
                _refuse(add(), item, committed, batch.now_ms)
    return response


class _Told:
    """A group of the answer, and where its `signed_by` has each key version."""

    __slots__ = ("_indices", "_keys", "decided", "group")

    def __init__(self, group: signing_pb2.SignedGroup, decided: Group) -> None:
        self.group, self.decided = group, decided
        keys = decided.signable.keys if decided.signable is not None else ()
        for key in keys:
            group.signed_by.add().CopyFrom(key.signed_by)
        self._keys = keys
        self._indices: dict[bytes, int] | None = None

    def index_of(self, stored: bytes) -> int:
        """Returns the index of a stored `signed_by` in the group; adds it if it is not there."""
        if self._indices is None:
            self._indices = {key.stored: index for index, key in enumerate(self._keys)}
        index = self._indices.setdefault(stored, len(self._indices))
        if index == len(self.group.signed_by):
            self.group.signed_by.add().CopyFrom(signed_by_of(stored))
        return index


def _repeat(
    slot: signing_pb2.SignedItem, item: Item, stored: Stored, told: _Told, revoked: RevocationIndex
) -> None:
    """The intent was stored before: answer with its bytes, if they may be released now. Raises
    UNREADABLE.
    """
    signable = told.decided.signable
    if stored.state is not IntentState.DONE:
        slot.failure.CopyFrom(refusal_of(stored.result))
    elif signable is not None and (gone := withdrawn_in(stored, signable.capability, revoked)):
        slot.failure.CopyFrom(signed_before(revoked_failure(gone)).to_item())
    elif item.signatures:
        assert signable is not None
        for under, value in _opened(stored, item.intent_id, signable.results):
            slot.signatures.add(value=value, key=told.index_of(under))
    else:
        assert item.failure is not None
        error = signed_before(FailureError.from_item(item.failure))
        slot.failure.CopyFrom(error.to_item())


def _refuse(slot: signing_pb2.SignedItem, item: Item, committed: Committed, now_ms: int) -> None:
    """The ledger refused the intent."""
    why = "The ledger does not take this intent."
    if committed.reason == failures_pb2.REASON_INTENT_EXPIRED:
        why = too_old(item.intent_id, now_ms)
    slot.leaf_index = committed.leaf_index
    item.failure = FailureError(committed.reason, why).to_item()
    _fail(slot, item)


def _fail(slot: signing_pb2.SignedItem, item: Item) -> None:
    """Answer with the failure of an item. If an earlier attempt signed it, the outcome is *unknown*
    and not *refused*.
    """
    failure = item.failure
    assert failure is not None
    if item.signed_before:
        error = FailureError.from_item(failure)
        if error.outcome != failures_pb2.OUTCOME_UNKNOWN:
            failure = signed_before(error).to_item()
    slot.failure.CopyFrom(failure)


def withdrawn_in(
    stored: Stored, capability: Capability, revoked: RevocationIndex
) -> Revocation | None:
    """Returns the revocation of a key version that made one of these stored signatures, or None.
    What was signed before is not released after it (I6).
    """
    if not revoked.names_versions:
        return None
    for under, _ in signatures_of(stored.result):
        version = signed_by_of(under).version
        found = revoked.of_version(capability.tenant, capability.key, version)
        if found is not None:
            return found
    return None


def _opened(stored: Stored, intent_id: bytes, results: ResultSeal) -> list[tuple[bytes, bytes]]:
    """Returns the signatures of a row, each after what it was made under. Raises StoredResultError,
    SealBrokenError.
    """
    found = signatures_of(stored.result)
    if not is_sealed(stored.result):
        return found
    return [
        (under, results.open(value, place_of(intent_id, number)))
        for number, (under, value) in enumerate(found)
    ]


def stored_group(stored: Stored, intent_id: bytes, results: ResultSeal) -> signing_pb2.SignedGroup:
    """Returns a group of one item, with the signatures of a row that is done."""
    group = signing_pb2.SignedGroup()
    item = group.items.add(leaf_index=stored.leaf_index)
    for key, (under, value) in enumerate(_opened(stored, intent_id, results)):
        group.signed_by.add().CopyFrom(signed_by_of(under))
        item.signatures.add(value=value, key=key)
    return group


def unreadable(stored: Stored, error: Exception) -> FailureError:
    """Returns the failure of a stored answer that this replica cannot read. Whether it was signed
    is in the log, so the outcome is *unknown*; its neighbours in the batch are not touched.
    """
    logs.error("result.unreadable", leaf=stored.leaf_index, error=type(error).__name__)
    return FailureError(
        failures_pb2.REASON_COMMIT_UNKNOWN,
        f"The answer of leaf {stored.leaf_index} is stored and cannot be read by this replica: it "
        "is of another release, or damaged. Ask again once all replicas run the same release.",
    )


def signed_before(now: FailureError) -> FailureError:
    """Returns the failure of a stored signature that may not be released any more (I2, I6). It was
    signed, so the outcome is *unknown* and not *refused*.
    """
    detail = f"Signed before; now {now.row.name}."
    return FailureError(failures_pb2.REASON_COMMIT_UNKNOWN, detail)
