"""Tenants on a replica: what people ask about one as a whole."""

from __future__ import annotations

from typing import Any

from capsign_wire.adapter.v1 import tenants_pb2_grpc

from capsign_adapter.assembly.state import State
from capsign_adapter.custody.acts import Propose
from capsign_adapter.decide.approvals import Standing
from capsign_adapter.decide.rate import Buckets
from capsign_adapter.front.tenant_servicer import TenantServicer
from capsign_adapter.sign.clock import monotonic_ms


class TenantDesk:
    """Of one replica."""

    def __init__(self, state: State, propose: Propose) -> None:
        """`propose` is where acts of two people go."""
        self._state = state
        self._propose = propose
        self._asked = Buckets(monotonic_ms)

    def register(self, registrar: Any) -> None:
        """Add the service to a server."""
        state = self._state
        servicer = TenantServicer(
            self._standing, state.commitments, state.store, self._asked, self._propose
        )
        tenants_pb2_grpc.add_TenantServiceServicer_to_server(servicer, registrar)

    def _standing(self) -> Standing:
        """Who may do what now. Raises what the store raises."""
        return self._state.snapshots.standing()
