"""InventoryService: what there is to sign with, and what differs from what is expected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from capsign_evidence import leaf
from capsign_evidence.incident_leaf import IncidentState
from capsign_evidence.leaf_kinds import Act
from capsign_evidence.reconcile.incidents import Incident, signature_without_leaf
from capsign_wire import logs
from capsign_wire.adapter.v1 import inventory_pb2 as pb
from capsign_wire.adapter.v1 import inventory_pb2_grpc

from capsign_adapter.decide.approvals import Standing
from capsign_adapter.decide.inventory import Known, inventory
from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.policy import Role
from capsign_adapter.drift.watch import Watch
from capsign_adapter.front.guard import guarded
from capsign_adapter.front.incident_messages import incident_of
from capsign_adapter.front.inventory_messages import difference_of, page, replica_of, things_of
from capsign_adapter.front.key_messages import figures_of, time_of
from capsign_adapter.keys.keyring import Keyring
from capsign_adapter.model.drift import TokenContents
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.sign.snapshot import Snapshot, Snapshots
from capsign_adapter.store.interfaces.control import ControlState
from capsign_adapter.store.interfaces.drift import Drift, KeyUses
from capsign_adapter.store.interfaces.reconciliation import ReconciliationStore

LOOKING = frozenset({Role.OPERATOR, Role.RESPONDER, Role.AUDITOR})

CLOSING = frozenset({Role.RESPONDER})

FRESH_MS = 2_000
"""A look that is not older need not be taken again, milliseconds."""


class Shown(Drift, KeyUses, ReconciliationStore, ControlState, Protocol):
    """The parts of the store that this service reads."""


class InventoryServicer(inventory_pb2_grpc.InventoryServiceServicer):
    """For people."""

    def __init__(self, store: Shown, snapshots: Snapshots, keyring: Keyring, watch: Watch) -> None:
        self._store = store
        self._snapshots = snapshots
        self._keyring = keyring
        self._watch = watch

    @guarded
    def GetInventory(self, peer: Peer, request: pb.GetInventoryRequest) -> pb.GetInventoryResponse:
        """Returns a page. What is in the token is what the last look saw."""
        snapshot = self._demand(peer)
        if self._watch.token_view is None:
            self._watch.look()
        view, now = self._watch.token_view, now_ms()
        uses = self._store.key_uses()
        known = Known(
            snapshot.known(),
            uses,
            _by_label(view.contents) if view is not None else (),
            view.accounted.known if view is not None else frozenset(),
        )
        found = inventory(snapshot.policy, known, now)
        figures = figures_of(uses, snapshot.policy, snapshot.revoked)
        things = list(things_of(found, self._keyring, figures))
        answer = page(things, request.offset)
        answer.epoch = snapshot.epoch
        answer.at.FromMilliseconds(now)
        return answer

    @guarded
    def ListDrift(self, peer: Peer, request: pb.ListDriftRequest) -> pb.ListDriftResponse:
        """Returns what the store has, after a look of this replica if one is asked for."""
        self._demand(peer)
        watch = self._watch
        if request.look and now_ms() - watch.looked_ms > FRESH_MS:
            watch.look(thorough=True)
        state, now = self._store.drift(), now_ms()
        return pb.ListDriftResponse(
            differences=[difference_of(row) for row in state.rows[:1024]],
            looked_at=time_of(watch.looked_ms),
            replicas=[replica_of(one) for one in state.reports if one.is_live(now)],
            token_seen=watch.token_seen,
        )

    @guarded
    def ListIncidents(
        self, peer: Peer, request: pb.ListIncidentsRequest
    ) -> pb.ListIncidentsResponse:
        """Returns what the store has."""
        self._demand(peer)
        found = self._store.reconciliation()
        return pb.ListIncidentsResponse(
            incidents=[incident_of(row) for row in found.rows[:1024]],
            reconciled_through=found.position,
            tree_size=self._store.control().tree_size,
        )

    @guarded
    def CloseIncident(
        self, peer: Peer, request: pb.CloseIncidentRequest
    ) -> pb.CloseIncidentResponse:
        """Closes it once, with two entries: that it has ended, and who closed it."""
        digest, now = self._demand(peer, CLOSING).policy.digest, now_ms()

        def entries(one: Incident) -> Sequence[bytes]:
            kind = one.kind.name.lower().replace("_", "-")
            target = f"incident/{kind}/{request.leaf_index}"
            ended = one.entry(IncidentState.ENDED, now, digest)
            act = leaf.admin(now, digest, Act.INCIDENT_CLOSED, peer.spiffe_id, target, 0)
            return ended, act

        closed = self._store.close_incident(request.leaf_index, entries, now)
        return pb.CloseIncidentResponse(closed=closed)

    @guarded
    def ReportSignatures(
        self, peer: Peer, request: pb.ReportSignaturesRequest
    ) -> pb.ReportSignaturesResponse:
        """Files them as the responder says: to look through the whole log is the command's work."""
        policy_digest, now = self._demand(peer, CLOSING).policy.digest, now_ms()
        filed = 0
        for digest in request.signature_hashes:
            one = signature_without_leaf(digest, now)
            target = f"incident/signature-without-leaf/{digest.hex()}"
            act = leaf.admin(now, policy_digest, Act.SIGNATURE_REPORTED, peer.spiffe_id, target, 0)
            entry = one.entry(IncidentState.FOUND, now, policy_digest)
            if self._store.file_incident(one, entry, now, (act,)):
                filed += 1
                logs.warning("incident.found", kind="signature-without-leaf", digest=digest.hex())
        return pb.ReportSignaturesResponse(filed=filed)

    def _demand(self, peer: Peer, roles: frozenset[Role] = LOOKING) -> Snapshot:
        snapshot = self._snapshots.refresh()
        Standing(snapshot.policy, snapshot.revoked).demand(peer.spiffe_id, roles)
        return snapshot


def _by_label(contents: TokenContents) -> list[tuple[str, tuple[str, ...]]]:
    found: dict[str, list[str]] = {}
    for one in contents.objects:
        found.setdefault(one.label, []).append(one.kind)
    return [(label, tuple(sorted(kinds))) for label, kinds in sorted(found.items())]
