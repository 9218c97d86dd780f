"""ApprovalService: proposals, and the second person's word."""

from __future__ import annotations

from capsign_wire.adapter.v1 import approvals_pb2 as pb
from capsign_wire.adapter.v1 import approvals_pb2_grpc
from google.protobuf.timestamp_pb2 import Timestamp

from capsign_adapter.decide.peer import Peer
from capsign_adapter.front.guard import guarded
from capsign_adapter.model.proposals import ProposalRow
from capsign_adapter.sign.approvals import Approvals


class ApprovalServicer(approvals_pb2_grpc.ApprovalServiceServicer):
    """Acts for people."""

    def __init__(self, approvals: Approvals) -> None:
        self._approvals = approvals

    @guarded
    def ListProposals(
        self, peer: Peer, request: pb.ListProposalsRequest
    ) -> pb.ListProposalsResponse:
        """Newest first."""
        rows = self._approvals.listed(peer.spiffe_id, waiting=request.open, before=request.before)
        return pb.ListProposalsResponse(proposals=[proposal_of(row) for row in rows])

    @guarded
    def GetProposal(self, peer: Peer, request: pb.GetProposalRequest) -> pb.GetProposalResponse:
        """One of them, in words."""
        row, words = self._approvals.shown(peer.spiffe_id, request.id)
        return pb.GetProposalResponse(proposal=proposal_of(row), words=words)

    @guarded
    def Approve(self, peer: Peer, request: pb.ApproveRequest) -> pb.ApproveResponse:
        """In force everywhere when it answers, unless it waits. COMMIT_UNKNOWN says that it may
        be.
        """
        moved = self._approvals.approve(peer.spiffe_id, request.id, request.digest)
        return pb.ApproveResponse(
            proposal=proposal_of(moved.row), leaf_index=moved.leaf_index, epoch=moved.epoch
        )

    @guarded
    def Reject(self, peer: Peer, request: pb.RejectRequest) -> pb.RejectResponse:
        """Final."""
        moved = self._approvals.reject(peer.spiffe_id, request.id)
        return pb.RejectResponse(proposal=proposal_of(moved.row), leaf_index=moved.leaf_index)

    @guarded
    def CallOff(self, peer: Peer, request: pb.CallOffRequest) -> pb.CallOffResponse:
        """Final."""
        moved = self._approvals.call_off(peer.spiffe_id, request.id)
        return pb.CallOffResponse(proposal=proposal_of(moved.row), leaf_index=moved.leaf_index)

    @guarded
    def BreakGlass(self, peer: Peer, request: pb.BreakGlassRequest) -> pb.BreakGlassResponse:
        """In force everywhere when it answers."""
        moved = self._approvals.break_glass(
            peer.spiffe_id, request.id, request.digest, request.reason
        )
        return pb.BreakGlassResponse(
            proposal=proposal_of(moved.row), leaf_index=moved.leaf_index, epoch=moved.epoch
        )

    @guarded
    def Acknowledge(self, peer: Peer, request: pb.AcknowledgeRequest) -> pb.AcknowledgeResponse:
        """Not loud any more."""
        moved = self._approvals.acknowledge(peer.spiffe_id, request.id)
        return pb.AcknowledgeResponse(proposal=proposal_of(moved.row), leaf_index=moved.leaf_index)


def proposal_of(row: ProposalRow) -> pb.Proposal:
    """A proposal as it is shown; the payload stays inside, its words are asked for."""
    return pb.Proposal(
        id=row.id,
        act=pb.ProposalAct.ValueType(row.act),
        target=row.target,
        digest=row.digest,
        state=pb.ProposalState.ValueType(row.state),
        proposer=row.proposer,
        created_at=_time(row.created_ms),
        expires_at=_time(row.expires_ms),
        not_before=_time(row.not_before_ms),
        decided_by=row.decided_by,
        decided_at=_time(row.decided_ms),
        executed_at=_time(row.executed_ms),
        glass=pb.GlassReason.ValueType(row.glass),
        acknowledged_by=row.acknowledged_by,
        waits_ms=row.waits_ms,
    )


def _time(ms: int) -> Timestamp | None:
    if not ms:
        return None
    made = Timestamp()
    made.FromMilliseconds(ms)
    return made
