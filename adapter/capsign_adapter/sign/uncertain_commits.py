"""What happens if COMMIT's answer is lost: the store raises CommitUnknownError, and the transaction
may be durable or not.

* Nothing of it is released (I4). Every item that the ledger has not answered before ends as
  COMMIT_UNKNOWN, whose outcome is *unknown*; refused items too, since a refusal that is not in the
  ledger is not final (`fail_uncommitted`).
* Its signatures stay charged to the evidence quota, as if they were written (`keep_charged`).
* The caller learns the outcome from the ledger: ResolveIntent reads it or closes the intent
  (`resolve`), and the same call sent again gets the stored bytes (`commit`, I5).
* A change that raises the epoch is asked for again: that does no harm (`not_in_force_everywhere`).
"""

from __future__ import annotations

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.sign.batch import Batch


def failure() -> FailureError:
    """Returns the failure of a call whose commit had no answer."""
    return FailureError(
        failures_pb2.REASON_COMMIT_UNKNOWN, "The adapter's store failed during commit."
    )


def not_in_force_everywhere(epoch: int) -> FailureError:
    """Returns the failure of a change that is recorded under `epoch`, while the store fails before
    every replica has said that it follows.
    """
    detail = (
        f"Recorded at epoch {epoch}, but the store fails: replicas may lag for seconds. "
        f"Look whether it is in force, or ask again: that does no harm."
    )
    return FailureError(failures_pb2.REASON_COMMIT_UNKNOWN, detail)


def keep_charged(batch: Batch, drafts: int) -> None:
    """Count so many drafts as made: what may be written is not given back."""
    batch.made += drafts


def fails_as_a_whole(batch: Batch) -> bool:
    """Returns whether the ledger has answered no item of the batch, and no earlier attempt signed
    one: then the call fails, and otherwise its uncommitted items do.
    """
    return not batch.committed and not any(item.signed_before for item in batch.items)


def fail_uncommitted(batch: Batch, error: FailureError) -> None:
    """Set `error` for all items that were not committed; those that were are answered as usual.

    This includes refusals that are not in the ledger: they are not final, since the same intent may
    still be signed (I5).
    """
    refused = failures_pb2.OUTCOME_REFUSED
    rest = [
        item
        for item in batch.items
        if item.committed is None
        and (item.failure is None or FailureError.from_item(item.failure).outcome == refused)
    ]
    batch.fail(rest, error)
