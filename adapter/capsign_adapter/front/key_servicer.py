"""KeyService: the life of key versions. Every act has a leaf in the log, and so has every move that
was refused because the table does not have it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from capsign_wire.adapter.v1 import admin_pb2, keys_pb2_grpc
from capsign_wire.adapter.v1 import keys_pb2 as pb
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2

from capsign_adapter.custody.acts import Done, KeyActs, demand_role
from capsign_adapter.decide import key_acts
from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.policy import Policy
from capsign_adapter.front.guard import guarded
from capsign_adapter.front.key_messages import version_of
from capsign_adapter.keys.keyring import Keyring
from capsign_adapter.model.lifecycle import KeyEvent

MAX_GRANTS = 256
"""Grants of one answer."""

CHANGES: Mapping[int, KeyEvent] = MappingProxyType(
    {
        pb.KEY_CHANGE_PUBLISH: KeyEvent.PUBLISH,
        pb.KEY_CHANGE_ACTIVATE: KeyEvent.ACTIVATE,
        pb.KEY_CHANGE_RESUME: KeyEvent.RESUME,
        pb.KEY_CHANGE_DEACTIVATE: KeyEvent.DEACTIVATE,
    }
)
"""The events of the numbers in messages."""

WITHDRAWALS: Mapping[int, KeyEvent] = MappingProxyType(
    {
        pb.KEY_WITHDRAWAL_SUSPEND: KeyEvent.SUSPEND,
        pb.KEY_WITHDRAWAL_COMPROMISE: KeyEvent.COMPROMISE,
    }
)
"""Those that end the use of a version at once."""


class KeyServicer(keys_pb2_grpc.KeyServiceServicer):
    """Never returns a private key."""

    def __init__(self, policy: Callable[[], Policy], acts: KeyActs, keyring: Keyring) -> None:
        self._policy = policy
        self._acts = acts
        self._keyring = keyring

    @guarded
    def GetKey(self, peer: Peer, request: pb.GetKeyRequest) -> pb.GetKeyResponse:
        """Returns the key, what policy says of it and who signs with it."""
        policy, tenant, name = self._policy(), request.tenant, request.key
        demand_role(policy, peer.spiffe_id, key_acts.LOOKING)
        known, rows = policy.key(tenant, name), self._acts.rows_of(tenant, name)
        if known is None and not rows:
            detail = f"Neither the policy in force nor the store has a key {tenant}/{name}."
            raise FailureError(failures_pb2.REASON_NOT_FOUND, detail, field="key")
        grants = [each for each in policy.grants if (each.tenant, each.key) == (tenant, name)]
        return pb.GetKeyResponse(
            key=admin_pb2.Key(
                tenant=tenant,
                name=name,
                versions=[version_of(row, self._keyring) for row in rows[:256]],
            ),
            in_policy=known is not None,
            policy_algorithms=[
                algorithms_pb2.Algorithm.ValueType(number)
                for number in sorted(known.algorithms if known is not None else ())
            ],
            grants=sorted(each.name for each in grants)[:MAX_GRANTS],
            workloads=len({workload for each in grants for workload in each.workloads}),
        )

    @guarded
    def CreateKey(self, peer: Peer, request: pb.CreateKeyRequest) -> pb.CreateKeyResponse:
        """The first version signs when this answers."""
        done = self._acts.make(peer.spiffe_id, request.tenant, request.key, 0)
        return pb.CreateKeyResponse(moved=self._moved(done))

    @guarded
    def CreateKeyVersion(
        self, peer: Peer, request: pb.CreateKeyVersionRequest
    ) -> pb.CreateKeyVersionResponse:
        """Made, and in no use yet."""
        done = self._acts.make(peer.spiffe_id, request.tenant, request.key, request.newest)
        return pb.CreateKeyVersionResponse(moved=self._moved(done))

    @guarded
    def ChangeKeyVersion(
        self, peer: Peer, request: pb.ChangeKeyVersionRequest
    ) -> pb.ChangeKeyVersionResponse:
        """In force on this replica when it answers, on the others within their poll; what ends a
        use, on all of them.
        """
        done = self._move(peer, request.name, CHANGES[request.change])
        return pb.ChangeKeyVersionResponse(moved=self._moved(done))

    @guarded
    def WithdrawKeyVersion(
        self, peer: Peer, request: pb.WithdrawKeyVersionRequest
    ) -> pb.WithdrawKeyVersionResponse:
        """In force on all replicas when it answers (I6)."""
        done = self._move(peer, request.name, WITHDRAWALS[request.withdrawal])
        return pb.WithdrawKeyVersionResponse(moved=self._moved(done))

    def _move(self, peer: Peer, name: pb.KeyVersionName, event: KeyEvent) -> Done:
        return self._acts.move(peer.spiffe_id, name.tenant, name.key, name.version, event)

    def _moved(self, done: Done) -> pb.KeyVersionMoved:
        return pb.KeyVersionMoved(
            version=version_of(done.row, self._keyring),
            epoch=done.epoch,
            leaf_index=done.leaf_index,
        )
