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

from capsign_adapter.custody.acts import Done, KeyActs, Propose
from capsign_adapter.decide import key_acts
from capsign_adapter.decide.approvals import Standing
from capsign_adapter.decide.jwks import place_of
from capsign_adapter.decide.peer import Peer
from capsign_adapter.front.guard import guarded
from capsign_adapter.front.key_messages import figures_of, time_of, version_of
from capsign_adapter.keys.keyring import Keyring
from capsign_adapter.model.drift import KeyUse
from capsign_adapter.model.lifecycle import KeyEvent
from capsign_adapter.sign.key_sets import KeySets

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

    def __init__(
        self,
        standing: Callable[[], Standing],
        acts: KeyActs,
        keyring: Keyring,
        propose: Propose,
        sets: KeySets,
        uses: Callable[[], list[KeyUse]],
    ) -> None:
        """`propose` makes the proposal of an act that takes two people; `uses` are those of all
        versions.
        """
        self._uses = uses
        self._standing = standing
        self._propose = propose
        self._acts = acts
        self._keyring = keyring
        self._sets = sets

    @guarded
    def GetKey(self, peer: Peer, request: pb.GetKeyRequest) -> pb.GetKeyResponse:
        """Returns the key, what policy says of it and who signs with it."""
        standing, tenant, name = self._standing(), request.tenant, request.key
        standing.demand(peer.spiffe_id, key_acts.LOOKING)
        policy = standing.policy
        known, rows = policy.key(tenant, name), self._acts.rows_of(tenant, name)
        if known is None and not rows:
            detail = f"Neither the policy in force nor the store has a key {tenant}/{name}."
            raise FailureError(failures_pb2.REASON_NOT_FOUND, detail, field="key")
        figures = figures_of(self._uses(), policy, standing.revoked)
        grants = [each for each in policy.grants if (each.tenant, each.key) == (tenant, name)]
        return pb.GetKeyResponse(
            key=admin_pb2.Key(
                tenant=tenant,
                name=name,
                versions=[version_of(row, self._keyring, figures) for row in rows[:256]],
            ),
            in_policy=known is not None,
            policy_algorithms=[
                algorithms_pb2.Algorithm.ValueType(number)
                for number in sorted(known.algorithms if known is not None else ())
            ],
            grants=sorted(each.name for each in grants)[:MAX_GRANTS],
            workloads=len({workload for each in grants for workload in each.workloads}),
            destructions=[
                pb.PendingDestruction(
                    version=int(row.target.rpartition("/")[2]),
                    proposal_id=row.id,
                    not_before=time_of(row.not_before_ms),
                )
                for row in self._acts.pending.of(tenant, name)
            ],
        )

    @guarded
    def CreateKey(self, peer: Peer, request: pb.CreateKeyRequest) -> pb.CreateKeyResponse:
        """Makes a key's first version, which signs when this answers."""
        done = self._acts.make(peer.spiffe_id, request.tenant, request.key, 0)
        return pb.CreateKeyResponse(moved=self._moved(done))

    @guarded
    def CreateKeyVersion(
        self, peer: Peer, request: pb.CreateKeyVersionRequest
    ) -> pb.CreateKeyVersionResponse:
        """Makes a version that is in no use yet."""
        if not request.newest:
            detail = "Say which version is the newest; the first one is made by CreateKey."
            raise FailureError(failures_pb2.REASON_INPUT_MALFORMED, detail, field="newest")
        done = self._acts.make(peer.spiffe_id, request.tenant, request.key, request.newest)
        return pb.CreateKeyVersionResponse(moved=self._moved(done))

    @guarded
    def ChangeKeyVersion(
        self, peer: Peer, request: pb.ChangeKeyVersionRequest
    ) -> pb.ChangeKeyVersionResponse:
        """Moves a version; in force on this replica when it answers, on the others within their
        poll; what ends a use, on all of them.
        """
        done = self._move(peer, request.name, CHANGES[request.change])
        return pb.ChangeKeyVersionResponse(moved=self._moved(done))

    @guarded
    def WithdrawKeyVersion(
        self, peer: Peer, request: pb.WithdrawKeyVersionRequest
    ) -> pb.WithdrawKeyVersionResponse:
        """Withdraws a version; in force on all replicas when it answers (I6)."""
        done = self._move(peer, request.name, WITHDRAWALS[request.withdrawal])
        return pb.WithdrawKeyVersionResponse(moved=self._moved(done))

    @guarded
    def DestroyKeyVersion(
        self, peer: Peer, request: pb.DestroyKeyVersionRequest
    ) -> pb.DestroyKeyVersionResponse:
        """Proposes the destruction of a version; answers with the same proposal if one waits."""
        name = request.name
        row = self._acts.destroy(peer.spiffe_id, name.tenant, name.key, name.version, self._propose)
        return pb.DestroyKeyVersionResponse(
            proposal_id=row.id,
            digest=row.digest,
            expires_at=time_of(row.expires_ms),
            waits_ms=row.waits_ms,
        )

    @guarded
    def GetKeySet(self, peer: Peer, request: pb.GetKeySetRequest) -> pb.GetKeySetResponse:
        """Returns the JWK Set as every replica serves it now."""
        standing = self._standing()
        standing.demand(peer.spiffe_id, key_acts.LOOKING)
        grant = standing.policy.grant(request.grant)
        place = place_of(
            standing.policy, grant.tenant if grant else "", request.grant, request.context
        )
        found = self._sets.of(place.grant.tenant, request.grant, request.context)
        return pb.GetKeySetResponse(key_set=found.body, path=place.path)

    def _move(self, peer: Peer, name: pb.KeyVersionName, event: KeyEvent) -> Done:
        return self._acts.move(peer.spiffe_id, name.tenant, name.key, name.version, event)

    def _moved(self, done: Done) -> pb.KeyVersionMoved:
        return pb.KeyVersionMoved(
            version=version_of(done.row, self._keyring),
            epoch=done.epoch,
            leaf_index=done.leaf_index,
        )
