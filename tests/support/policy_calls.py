"""An operator who proposes versions of the policy, and an approver who decides, over a replica's
real TLS.
"""

from __future__ import annotations

from contextlib import ExitStack

from capsign_adapter.model.lifecycle import PolicyState
from capsign_wire.adapter.v1 import approvals_pb2, approvals_pb2_grpc, policy_pb2, policy_pb2_grpc
from capsign_wire.packed import pack
from support.adapter_rig import APPROVER, OPERATOR
from support.replica import RunningReplica
from support.state_cells import asked


class Reviewers:
    """The channels are closed when `ends` is."""

    def __init__(self, replica: RunningReplica, ends: ExitStack) -> None:
        self.replica = replica
        operator, approver = (ends.enter_context(replica.as_(who)) for who in (OPERATOR, APPROVER))
        self._policies = policy_pb2_grpc.PolicyServiceStub(operator)
        self._operator = approvals_pb2_grpc.ApprovalServiceStub(operator)
        self._approver = approvals_pb2_grpc.ApprovalServiceStub(approver)

    def propose(self, document: str) -> policy_pb2.ProposePolicyResponse:
        request = policy_pb2.ProposePolicyRequest(document=pack(document.encode()))
        return self._policies.ProposePolicy(request, timeout=20)

    def state(self, version: int) -> PolicyState:
        request = policy_pb2.GetPolicyRequest(version=version)
        return PolicyState(self._policies.GetPolicy(request, timeout=20).version.state)

    def in_force(self) -> int:
        request = policy_pb2.GetPolicyRequest()
        return self._policies.GetPolicy(request, timeout=20).version.version

    def proposal(self, proposal_id: bytes) -> approvals_pb2.Proposal:
        request = approvals_pb2.GetProposalRequest(id=proposal_id)
        return self._operator.GetProposal(request, timeout=20).proposal

    def ask(self, verb: str, proposal_id: bytes):
        """What it answered, or the reason of its refusal; then what follows from it by itself."""
        if verb == "approve":
            digest = self.proposal(proposal_id).digest
            approval = approvals_pb2.ApproveRequest(id=proposal_id, digest=digest)
            told = asked(self._approver.Approve, approval)
        elif verb == "reject":
            told = asked(self._approver.Reject, approvals_pb2.RejectRequest(id=proposal_id))
        else:
            told = asked(self._operator.CallOff, approvals_pb2.CallOffRequest(id=proposal_id))
        self.follow()
        return told

    def follow(self) -> None:
        """The replica looks, as it does every two seconds."""
        self.replica.replica.listeners.policies.versions.look()
