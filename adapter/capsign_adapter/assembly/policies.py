"""Versions of the policy on a replica: what people ask, the file, and what a version needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from capsign_wire import logs
from capsign_wire.adapter.v1 import policy_pb2_grpc
from capsign_wire.telemetry import Metrics

from capsign_adapter.assembly.state import State
from capsign_adapter.front.policy_servicer import PolicyServicer
from capsign_adapter.keys import labels
from capsign_adapter.keys.provision import make_pepper
from capsign_adapter.sign.approvals import Approvals
from capsign_adapter.sign.policy_file import LOOK_S, PolicyFile
from capsign_adapter.sign.policy_versions import PolicyVersions
from capsign_adapter.sign.tickers import Ticker


class PolicyDesk:
    """Of one replica."""

    def __init__(self, path: Path, state: State, approvals: Approvals, metrics: Metrics) -> None:
        """`path` is the file that the configuration names."""
        self._state = state
        self._equipped = 0
        self.versions = PolicyVersions(state.store, state.snapshots, state.epochs, approvals)
        self.file = PolicyFile(path, state.store, state.snapshots, self.versions)
        snapshots = state.snapshots
        metrics.gauge("capsign.policy.version", lambda: snapshots.current.policy_version)
        metrics.gauge("capsign.policy.file_differs", lambda: int(self.file.differs))

    def register(self, registrar: Any) -> None:
        """Add the service to a server."""
        state = self._state
        servicer = PolicyServicer(
            self.versions, state.store, state.snapshots, lambda: self.file.digest
        )
        policy_pb2_grpc.add_PolicyServiceServicer_to_server(servicer, registrar)

    def ticker(self) -> Ticker:
        """Looks at the file, again and again; not yet started."""
        return Ticker("policy", LOOK_S, self.look)

    def look(self) -> None:
        """Give new tenants their pepper, end versions that nobody approved, look at the file."""
        self._equip()
        self.versions.look()
        self.file.look()

    def _equip(self) -> None:
        """A tenant that the policy has now and had not before needs the secret of its commitments.

        One with keys has had it: if that is gone a person must look, as `provision` says.
        """
        snapshot, token = self._state.snapshots.current, self._state.token
        if snapshot.policy_version == self._equipped:
            return
        known = {tenant for tenant, _ in snapshot.versions} | snapshot.revoked.erased
        held = set(token.labels())
        for tenant in snapshot.policy.tenants:
            if tenant not in known and labels.pepper(tenant) not in held:
                make_pepper(token, tenant)
                logs.event("tenant.equipped", tenant=tenant)
        self._equipped = snapshot.policy_version
