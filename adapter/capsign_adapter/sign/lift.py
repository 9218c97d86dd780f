"""Lifting a revocation, as an act that two people do (`store/executors.py`)."""

from __future__ import annotations

from collections.abc import Callable

from capsign_evidence import leaf
from capsign_evidence.leaf_kinds import Act
from capsign_wire.adapter.v1 import revocations_pb2 as pb
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide.revocation_target import kind_name, target_in_log
from capsign_adapter.model.proposals import ProposalRow
from capsign_adapter.store import registry
from capsign_adapter.store.executors import Executor
from capsign_adapter.store.transaction import Head, Reader, Transaction


def payload_of(kind: int, target: str) -> bytes:
    """Returns what exactly will happen, canonically serialised."""
    request = pb.ProposeLiftRequest(target=target)
    request.kind = kind  # type: ignore[assignment]  # an enum's number
    return request.SerializeToString(deterministic=True)


def lift_executor(policy_digest: Callable[[], bytes]) -> Executor:
    """It stands on the revocations of exactly that target that stand, by their epochs: whatever is
    revoked again meanwhile is not lifted with it. `policy_digest` is that of the policy in force.
    """

    def execute(tx: Transaction, head: Head, row: ProposalRow, now_ms: int) -> None:
        asked, actor, digest = _asked(row), row.decided_by, policy_digest()
        act, target = Act.REVOCATION_LIFTED, target_in_log(asked.kind, asked.target)
        registry.lift(
            tx,
            head,
            asked.kind,
            asked.target,
            lambda epoch: leaf.admin(now_ms, digest, act, actor, target, epoch),
            now_ms,
        )

    return Executor(words=_words, state=_state, execute=execute)


def _asked(row: ProposalRow) -> pb.ProposeLiftRequest:
    return pb.ProposeLiftRequest.FromString(row.payload)


def _state(tx: Reader, row: ProposalRow) -> bytes:
    asked = _asked(row)
    epochs = registry.standing(tx, asked.kind, asked.target)
    if not epochs:
        raise FailureError(
            failures_pb2.REASON_NOT_FOUND,
            "Nothing of that name is revoked now.",
            field="target",
        )
    return b"".join(epoch.to_bytes(8, "big") for epoch in epochs)


def _words(row: ProposalRow) -> list[str]:
    asked = _asked(row)
    kind = kind_name(asked.kind)
    what = "Everything" if kind == "everything" else f"The {kind} {asked.target}"
    return [
        f"{what}, which is revoked, may be used again, on every replica at once.",
        "What is revoked besides, also a part of it, stays revoked.",
        "Handles that were issued before and have not expired are good again.",
    ]
