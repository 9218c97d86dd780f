"""KeyService as people call it, over a replica's real TLS."""

from __future__ import annotations

import threading

import grpc
from capsign_wire.adapter.v1 import admin_pb2, approvals_pb2, approvals_pb2_grpc, keys_pb2_grpc
from capsign_wire.adapter.v1 import keys_pb2 as pb
from capsign_wire.failures import FailureError

CHANGES = {
    "publish": pb.KEY_CHANGE_PUBLISH,
    "activate": pb.KEY_CHANGE_ACTIVATE,
    "resume": pb.KEY_CHANGE_RESUME,
    "deactivate": pb.KEY_CHANGE_DEACTIVATE,
}
WITHDRAWALS = {
    "suspend": pb.KEY_WITHDRAWAL_SUSPEND,
    "compromise": pb.KEY_WITHDRAWAL_COMPROMISE,
}
SECONDS = 20


class People:
    """Somebody with a role, at one replica. Refusals are raised as FailureError."""

    def __init__(self, channel: grpc.Channel, tenant: str = "demo", key: str = "orders") -> None:
        self.keys = keys_pb2_grpc.KeyServiceStub(channel)
        self.approvals = approvals_pb2_grpc.ApprovalServiceStub(channel)
        self.tenant, self.key = tenant, key

    def show(self) -> pb.GetKeyResponse:
        return _said(self.keys.GetKey, pb.GetKeyRequest(tenant=self.tenant, key=self.key))

    def version(self, number: int) -> admin_pb2.KeyVersion:
        return next(each for each in self.show().key.versions if each.version == number)

    def create(self) -> pb.KeyVersionMoved:
        request = pb.CreateKeyRequest(tenant=self.tenant, key=self.key)
        return _said(self.keys.CreateKey, request).moved

    def make(self, newest: int = 0) -> pb.KeyVersionMoved:
        """A further version; after the newest there is, if none is named."""
        after = newest or self.show().key.versions[0].version
        request = pb.CreateKeyVersionRequest(tenant=self.tenant, key=self.key, newest=after)
        return _said(self.keys.CreateKeyVersion, request).moved

    def move(self, event: str, version: int) -> pb.KeyVersionMoved:
        """Any event that one person brings about."""
        name = pb.KeyVersionName(tenant=self.tenant, key=self.key, version=version)
        if event in CHANGES:
            changed = pb.ChangeKeyVersionRequest(name=name, change=CHANGES[event])
            return _said(self.keys.ChangeKeyVersion, changed).moved
        withdrawn = pb.WithdrawKeyVersionRequest(name=name, withdrawal=WITHDRAWALS[event])
        return _said(self.keys.WithdrawKeyVersion, withdrawn).moved

    def propose_destruction(self, version: int) -> pb.DestroyKeyVersionResponse:
        name = pb.KeyVersionName(tenant=self.tenant, key=self.key, version=version)
        return _said(self.keys.DestroyKeyVersion, pb.DestroyKeyVersionRequest(name=name))

    def approve(self, proposal: pb.DestroyKeyVersionResponse) -> approvals_pb2.Proposal:
        request = approvals_pb2.ApproveRequest(id=proposal.proposal_id, digest=proposal.digest)
        return _said(self.approvals.Approve, request).proposal

    def call_off(self, proposal: pb.DestroyKeyVersionResponse) -> None:
        _said(self.approvals.CallOff, approvals_pb2.CallOffRequest(id=proposal.proposal_id))


def eventually(question) -> bool:
    """Whether it becomes true within a time that only what hangs reaches."""
    waiting = threading.Event()
    return any(question() or waiting.wait(0.05) for _ in range(600))


def _said(call, request):
    try:
        return call(request, timeout=SECONDS)
    except grpc.RpcError as error:
        failure = FailureError.from_rpc(error)
        if failure is None:  # not in our terms
            raise
        raise failure from None
