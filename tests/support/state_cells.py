"""What a cell of a table of states is held against: what a service answered, and what the log has
of a move that was refused.
"""

from __future__ import annotations

import grpc
from capsign_adapter.assembly.acts import executors_of
from capsign_adapter.sign.approvals import Approvals
from capsign_adapter.sign.clock import now_ms
from capsign_evidence.leaf_kinds import Act
from capsign_evidence.leaf_reader import Admin, decode
from capsign_wire.failures import FailureError
from support.replica import RunningReplica


def asked(call, request):
    """What it answered, or the reason of its refusal."""
    try:
        return call(request, timeout=20)
    except grpc.RpcError as error:
        failure = FailureError.from_rpc(error)
        if failure is None:
            raise
        return failure.reason


def refusals(replica: RunningReplica, act: Act, target: str) -> int:
    """How many refused moves of this the log has."""
    entries = [decode(entry) for entry in replica.rig.entries()]
    return sum(isinstance(one, Admin) and (one.act, one.target) == (act, target) for one in entries)


def look_later(replica: RunningReplica, passed_ms: int) -> None:
    """Another replica looks for proposals that are due, whose clock is so far ahead."""
    beside = replica.rig.beside()
    beside.store.clock_ms = lambda: None
    listeners, state = replica.replica.listeners, replica.replica.state
    Approvals(
        beside.store,
        state.snapshots,
        state.epochs,
        executors_of(state, listeners.custody),
        state.refused_moves,
        lambda: now_ms() + passed_ms,
    ).look()
    beside.close()
