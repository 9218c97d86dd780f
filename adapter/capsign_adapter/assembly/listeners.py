"""Where peers arrive: the servers, what stands before their services, and the addresses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import grpc
from capsign_wire import addresses, settings
from capsign_wire.adapter.v1 import (
    admin_pb2_grpc,
    approvals_pb2_grpc,
    capability_pb2_grpc,
    evidence_pb2_grpc,
    inventory_pb2_grpc,
    revocations_pb2_grpc,
    signing_pb2_grpc,
)
from capsign_wire.lenient import LenientRegistrar
from capsign_wire.rpc_metrics import MeasuredRegistrar
from capsign_wire.telemetry import Metrics
from capsign_wire.tracing import Tracer

from capsign_adapter.assembly.acts import approvals_of
from capsign_adapter.assembly.custody import Custody
from capsign_adapter.assembly.policies import PolicyDesk
from capsign_adapter.assembly.rollouts import RolloutParts
from capsign_adapter.assembly.signing_path import SigningPath
from capsign_adapter.assembly.state import State
from capsign_adapter.assembly.tenants import TenantDesk
from capsign_adapter.config import Config
from capsign_adapter.decide.rate import Buckets
from capsign_adapter.drift.watch import Watch
from capsign_adapter.front.admin_server import AdminServer
from capsign_adapter.front.admin_servicer import AdminServicer
from capsign_adapter.front.approval_servicer import ApprovalServicer
from capsign_adapter.front.batch_telemetry import BatchTelemetry
from capsign_adapter.front.call_deadlines import DeadlineRegistrar
from capsign_adapter.front.capability_servicer import CapabilityServicer
from capsign_adapter.front.capacity import Connections
from capsign_adapter.front.charging import ChargingRegistrar
from capsign_adapter.front.enrolment_server import EnrolmentServer
from capsign_adapter.front.evidence_servicer import EvidenceServicer
from capsign_adapter.front.health import Health
from capsign_adapter.front.inventory_servicer import InventoryServicer
from capsign_adapter.front.log_routes import Exposure, LogRoutes
from capsign_adapter.front.peer_quota import PeerQuota
from capsign_adapter.front.public_routes import Routes
from capsign_adapter.front.public_server import PublicServer
from capsign_adapter.front.revocation_servicer import RevocationServicer
from capsign_adapter.front.signing_servicer import SigningServicer
from capsign_adapter.front.streams import Streams
from capsign_adapter.front.threads import Threads
from capsign_adapter.front.tls import server_options
from capsign_adapter.identities import Identities
from capsign_adapter.sign.clock import monotonic_ms
from capsign_adapter.sign.replica_health import ReplicaHealth

Bound = TypeVar("Bound")


class Listeners:
    """Of one replica: bound when they are made, and served from `start` on."""

    def __init__(
        self,
        config: Config,
        state: State,
        path: SigningPath,
        identities: Identities,
        limits: Connections,
        telemetry: tuple[Metrics, Tracer],
        watch: Watch,
    ) -> None:
        """Raises SettingsError that names the key of an address that cannot be listened on."""
        self._config, policy = config, state.snapshots.policy
        self._state, self._path, self._identities = state, path, identities
        self._metrics, self._tracer = telemetry
        listen = config.listen
        self.streams = Streams()
        self.peer_quota = PeerQuota(
            policy, listen.streams, Buckets(monotonic_ms), config.control.calls_per_second
        )
        self._evidence = EvidenceServicer(
            policy,
            state.snapshots.standing,
            state.yielding_store,
            state.checkpoints,
            path.evidence_quota,
            path.budget,
        )
        self.custody = Custody(state, self._metrics)
        self.approvals = approvals_of(state, self.custody)
        self.rollouts = RolloutParts(state, self._metrics)
        self.tenants = TenantDesk(state, self.approvals.propose)
        self.policies = PolicyDesk(config.policy, state, self.approvals, self._metrics)
        self._people = AdminServicer(
            state.store,
            state.token,
            state.keyring,
            state.snapshots,
            state.epochs,
            self.approvals,
        )
        self._inventory = InventoryServicer(state.store, state.snapshots, state.keyring, watch)
        self._revocations = RevocationServicer(state.store, state.snapshots, self.approvals)
        self.workloads = grpc.server(
            Threads(listen.streams, "call"),
            options=server_options(limits.main, listen.message_bytes),
        )
        self._register()
        credentials = identities.credentials(demand_certificate=True)
        self.port = _bind(
            "listen.address",
            listen.address,
            lambda at: self.workloads.add_secure_port(at, credentials),
        )
        self.admin = self._admin_server(limits.admin) if listen.admin_address else None
        self.enrolment = (
            self._enrolment_server(limits.enrolment) if listen.enrolment_address else None
        )
        self.public = self._public_server() if listen.public_address else None

    def health(self, replica_health: ReplicaHealth, most: int) -> Health:
        """The listener for probes: it answers by what `replica_health` has seen."""
        if self.public is not None:
            replica_health.add_instant({"public": self.public.fault})
        return _bind(
            "listen.health_address",
            self._config.listen.health_address,
            lambda at: Health(
                at, lambda: not replica_health.faults(), lambda: replica_health.alive, most
            ),
        )

    def start(self) -> None:
        self.workloads.start()
        if self.admin is not None:
            self.admin.start()
        if self.enrolment is not None:
            self.enrolment.start()
        if self.public is not None:
            self.public.start()

    def stop(self, drain_seconds: float) -> bool:
        """Take nothing new and wait for what is in flight; whether all of it ended in time."""
        if self.public is not None:
            self.public.stop()
        if self.enrolment is not None:
            self.enrolment.stop(1.0)
        ended = self.workloads.stop(grace=1.0).wait(timeout=drain_seconds)
        if self.admin is not None:
            # last: a stopping adapter too may have to be told
            ended = self.admin.stop(1.0) and ended
        return ended

    def _register(self) -> None:
        state, path = self._state, self._path
        signing = SigningServicer(
            path.pipeline,
            path.resolutions,
            path.public_keys,
            self.streams,
            BatchTelemetry(self._metrics, self._tracer),
            self.peer_quota,
            state.snapshots,
            state.barrier,
        )
        capability = CapabilityServicer(
            state.mint,
            state.handles,
            path.budget,
            state.snapshots,
            state.changes,
            self.streams,
            self.peer_quota,
            self._identities.bundle_sequence,
        )
        registrar = self._registrar()
        signing_pb2_grpc.add_SigningServiceServicer_to_server(signing, registrar)
        capability_pb2_grpc.add_CapabilityServiceServicer_to_server(capability, registrar)
        self._register_for_people(registrar)
        self._identities.register(registrar)

    def _register_for_people(self, registrar: Any) -> None:
        """What people ask, at either address."""
        evidence_pb2_grpc.add_EvidenceServiceServicer_to_server(self._evidence, registrar)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(self._people, registrar)
        approvals_pb2_grpc.add_ApprovalServiceServicer_to_server(
            ApprovalServicer(self.approvals), registrar
        )
        self.custody.register(registrar, self.approvals.propose)
        self.policies.register(registrar)
        self.tenants.register(registrar)
        revocations_pb2_grpc.add_RevocationServiceServicer_to_server(self._revocations, registrar)
        inventory_pb2_grpc.add_InventoryServiceServicer_to_server(self._inventory, registrar)
        self.rollouts.register(registrar)

    def _registrar(self) -> Any:
        """What a call passes before its service: measured, parsed, patient, and charged."""
        measured = LenientRegistrar(
            MeasuredRegistrar(self.workloads, self._metrics), self._config.listen.message_bytes
        )
        return ChargingRegistrar(
            DeadlineRegistrar(measured, self.peer_quota, self.peer_quota.working),
            self._state.snapshots.policy,
            self._path.budget,
            self._path.scheduler,
            self._state.scheduled_token,
        )

    def _admin_server(self, most: int) -> AdminServer:
        credentials = self._identities.credentials(demand_certificate=True)
        return _bind(
            "listen.admin_address",
            self._config.listen.admin_address,
            lambda at: AdminServer(
                at,
                credentials,
                self._state.snapshots.policy,
                self._register_for_people,
                self._metrics,
                most,
            ),
        )

    def _public_server(self) -> PublicServer:
        address = self._config.listen.public_address
        answers = self._metrics.counter("capsign.public.answers")
        exposure = Exposure(self._config.log.public)
        server = _bind(
            "listen.public_address",
            address,
            lambda _: PublicServer(
                addresses.listener(address),
                lambda: self._identities.pair(with_clients=exposure is Exposure.READERS),
                Routes(self._state.key_sets, self._state.key_readers),
                Buckets(monotonic_ms),
                answers.add,
                LogRoutes(
                    self._state.store,
                    self._state.checkpoints.stored,
                    self._state.snapshots.standing_known,
                    exposure,
                ),
            ),
        )
        self._metrics.gauge("capsign.public.connections", lambda: server.connections)
        return server

    def _enrolment_server(self, most: int) -> EnrolmentServer:
        return _bind(
            "listen.enrolment_address",
            self._config.listen.enrolment_address,
            lambda at: self._identities.enrolment_server(at, most),
        )


def _bind(key: str, address: str, bind: Callable[[str], Bound]) -> Bound:
    """Take an address. Raises SettingsError that names the key."""
    try:
        return bind(addresses.listener(address).listen)
    except RuntimeError:
        sentence = (
            f"The address {address} of `{key}` cannot be listened on. Is it host:port of this "
            f"machine, and free?"
        )
        raise settings.SettingsError(sentence, key=key) from None
