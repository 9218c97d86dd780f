"""What it is to approve a version of the policy: it comes into force in the transaction that moves
its proposal.
"""

from __future__ import annotations

from collections.abc import Sequence

from capsign_evidence import leaf
from capsign_evidence.leaf_kinds import Act
from capsign_wire.adapter.v1 import policy_pb2 as pb
from capsign_wire.bounds import parse

from capsign_adapter.decide.policy_versions import target_of
from capsign_adapter.model.policies import PolicyVersionRow
from capsign_adapter.model.proposals import ProposalRow
from capsign_adapter.store import policies
from capsign_adapter.store.executors import Executor
from capsign_adapter.store.transaction import Head, Reader, Transaction


def policy_executor() -> Executor:
    """See `Executor`."""
    return Executor(words=_words, state=_state, execute=_execute)


def _payload(row: ProposalRow) -> pb.PolicyProposal:
    payload: pb.PolicyProposal = parse(pb.PolicyProposal, row.payload)
    return payload


def _words(row: ProposalRow) -> Sequence[str]:
    payload = _payload(row)
    first = (
        f"Version {payload.version} of the policy comes into force in place of version "
        f"{payload.base}: SHA-256 {payload.digest.hex()}."
    )
    more = payload.change_count - len(payload.changes)
    rest = [f"And {more} more: `capsign policy diff --to {payload.version}`."] if more > 0 else []
    return [first, *payload.changes, *rest]


def _state(tx: Reader, row: ProposalRow) -> bytes:
    """The version in force, by which what changes was told, and that the proposed one still waits.

    Raises FailureError NOT_FOUND.
    """
    payload = _payload(row)
    now = policies.in_force(tx)
    proposed = policies.known(tx, payload.version)
    in_force = target_of(now.version, now.digest) if now else ""
    return f"{in_force} {target_of(proposed.version, proposed.digest)} {proposed.state}".encode()


def _execute(tx: Transaction, head: Head, row: ProposalRow, now_ms: int) -> None:
    payload = _payload(row)
    decided_under = policies.in_force(tx)
    digest = decided_under.digest if decided_under else payload.digest

    def entry(applied: PolicyVersionRow, epoch: int) -> bytes:
        target = target_of(applied.version, applied.digest)
        return leaf.admin(now_ms, digest, Act.POLICY_APPLIED, row.decided_by, target, epoch)

    policies.apply(tx, head, payload.version, row.decided_by, entry, now_ms)
