"""Acts that need two people: what each of them does, by act."""

from __future__ import annotations

from capsign_wire.adapter.v1 import approvals_pb2 as pb

from capsign_adapter.assembly.custody import Custody
from capsign_adapter.assembly.state import State
from capsign_adapter.custody import destroying, erasing
from capsign_adapter.sign.approvals import Approvals
from capsign_adapter.sign.lift import lift_executor
from capsign_adapter.store.executors import Executor, Executors
from capsign_adapter.store.policy_executor import policy_executor


def executors_of(state: State, custody: Custody) -> Executors:
    """How each act is done on one replica. Whoever adds an act adds its row in
    `decide.approvals.RULES`, its number in `approvals.proto` and `capsign_evidence.leaf_kinds`, and
    its executor here.
    """
    executors: dict[int, Executor] = {
        destroying.ACT: custody.executor,
        erasing.ACT: custody.erasing_executor,
        pb.PROPOSAL_ACT_POLICY: policy_executor(),
        pb.PROPOSAL_ACT_REVOCATION_LIFT: lift_executor(lambda: state.snapshots.policy().digest),
    }
    return Executors(executors)


def approvals_of(state: State, custody: Custody) -> Approvals:
    """The approvals of one replica."""
    executors = executors_of(state, custody)
    return Approvals(state.store, state.snapshots, state.epochs, executors, state.refused_moves)
