"""One replica: constructed in the order in which a call passes through its parts, started, and
stopped.
"""

from __future__ import annotations

import sys
import time

from capsign_wire import logs, runtime
from capsign_wire.memory_limit import memory_limit
from capsign_wire.telemetry import Metrics
from capsign_wire.tracing import Tracer

from capsign_adapter.algorithms import sodium
from capsign_adapter.assembly import periodic
from capsign_adapter.assembly.drift import DriftWatch, listening
from capsign_adapter.assembly.listeners import Listeners
from capsign_adapter.assembly.reconcile import Reconciliation
from capsign_adapter.assembly.retention import (
    moves_unwitnessed,
    read_cold_files,
    retention_ticker,
)
from capsign_adapter.assembly.signing_path import SigningPath
from capsign_adapter.assembly.state import State
from capsign_adapter.assembly.witnesses import WitnessParts
from capsign_adapter.config import Config
from capsign_adapter.decide.policy import Policy
from capsign_adapter.front.capacity import connections, demand_memory, raise_descriptors
from capsign_adapter.front.public_server import CONNECTIONS
from capsign_adapter.identities import Identities
from capsign_adapter.keys.provision import assert_inventory, unaccounted
from capsign_adapter.shutdown import SPARE_SECONDS, ShutdownSignal, force_exit_after
from capsign_adapter.sign import health_checks, policy_in_force
from capsign_adapter.sign.clock import monotonic_ms, now_ms
from capsign_adapter.sign.policy_in_force import InForce
from capsign_adapter.sign.replica_health import ReplicaHealth
from capsign_adapter.sign.tile_summaries import TileSummaries
from capsign_adapter.store.interfaces.whole import Store
from capsign_adapter.token.interface import Token

MAKING_SECONDS = 1.0
"""Time that a key may be in the token before its row is in the store, while another process makes
it.
"""


SWITCH_SECONDS = 0.001
"""Python's switch interval, seconds. A fifth of the default, because a commit has to wait for the
interpreter lock some twenty times.
"""


class Replica:
    """A running adapter process."""

    def __init__(
        self,
        config: Config,
        policy: Policy,
        token: Token,
        store: Store,
        telemetry: tuple[Metrics, Tracer],
        *,
        trial: bool = False,
        memory: int | None = None,
    ) -> None:
        """Does everything but `start`. `policy` comes into force in a store that has none; in any
        other the store's version holds. `trial`: change nothing, because the replica will not be
        started (`--check-config`). `memory`: bytes that the process may use; None: the limit of its
        control group.
        """
        metrics, _ = telemetry
        self.config = config
        memory = memory_limit() if memory is None else memory
        listen = config.listen
        public = CONNECTIONS if listen.public_address else 0
        demand_memory(memory, listen.streams, listen.message_bytes, public)
        limits = connections(raise_descriptors(), config.listen.streams)
        read_cold_files(config, store, metrics)
        in_force = policy_in_force.read(store, InForce(0, policy))
        _reconcile(token, store, in_force.policy, metrics)
        # Not before: a store with anything in it is not given the keys of a new deployment.
        if not trial and not in_force.version:
            policy_in_force.begin(store, policy, now_ms())
            in_force = policy_in_force.read(store, in_force)

        self.state = State(config, token, store, known=in_force)
        self.path = SigningPath(config, self.state, metrics)
        self.drift = DriftWatch(config, self.state, self.path.uses, metrics)
        self.reconciliation = Reconciliation(config, self.state, metrics)
        self.identities = Identities(
            config, token, store, self.state.snapshots, metrics, trial=trial
        )
        self.listeners = Listeners(
            config,
            self.state,
            self.path,
            self.identities,
            limits,
            telemetry,
            self.drift.watch,
        )
        self.drift.look_at(lambda: listening(config, self.listeners))
        replica_health = ReplicaHealth(monotonic_ms, health_checks.fault_of)
        replica_health.add_instant(
            {
                "descriptors": health_checks.descriptor_check,
                "identity": self.identities.fault,
                "log": self.state.checkpoints.fault,
            }
        )
        self.state.checkpoints.tell_contradictions(lambda: metrics.violated("I8"))
        self.witnesses = WitnessParts(config, self.state, metrics)
        self.drift.moves_unwitnessed(moves_unwitnessed(config, self.witnesses))
        self.witnesses.hold_against()
        self._health = self.listeners.health(replica_health, limits.health)
        self._tickers = [
            *periodic.signing_path_tickers(config, self.state, self.listeners, replica_health),
            periodic.load_shedding(config, self.listeners, self._health, memory),
            *self.identities.tickers(self.state.changes.announce),
            *periodic.health_check_tickers(config, self.state, replica_health, self._health),
            periodic.store_growth(config, self.state, metrics),
            *retention_ticker(
                config,
                self.state,
                metrics,
                self.witnesses,
                lambda: self.reconciliation.reads_the_log,
            ),
            periodic.due_proposals(self.listeners, metrics),
            TileSummaries(self.state.store, lambda: self.reconciliation.reads_the_log).ticker(),
            self.listeners.custody.ticker(),
            self.listeners.rollouts.ticker(),
            self.listeners.policies.ticker(),
            self.drift.ticker(),
            *self.witnesses.tickers(),
            *self.reconciliation.tickers(),
        ]
        periodic.tell_overdue(self._tickers, metrics)

    @property
    def verifier_key(self) -> str:
        """The log's public key, as `capsign log verify` takes it."""
        return self.state.checkpoints.verifier_key

    @property
    def drain_seconds(self) -> float:
        """How long calls in flight have to finish, seconds."""
        return self.config.drain_seconds

    @property
    def port(self) -> int:
        """Port of the listener for workloads."""
        return self.listeners.port

    @property
    def enrolment_port(self) -> int:
        """Port of the enrolment listener; 0: there is none."""
        return self.listeners.enrolment.port if self.listeners.enrolment is not None else 0

    @property
    def admin_port(self) -> int:
        """Port of the listener for people; 0: they use that of the workloads."""
        return self.listeners.admin.port if self.listeners.admin is not None else 0

    @property
    def public_port(self) -> int:
        """Port of the listener for verifiers; 0: there is none."""
        return self.listeners.public.port if self.listeners.public is not None else 0

    @property
    def health_port(self) -> int:
        """Port of the listener for probes."""
        return self._health.port

    def start(self) -> None:
        """Enter this replica into the store, listen, then report ready."""
        runtime.freeze_heap()
        sys.setswitchinterval(SWITCH_SECONDS)
        self.state.epochs.join()
        self.listeners.start()
        for ticker in self._tickers:
            ticker.start()
        self._health.serving()
        ports = {
            "port": self.port,
            "admin_port": self.admin_port,
            "enrolment_port": self.enrolment_port,
            "public_port": self.public_port,
            "health_port": self.health_port,
        }
        logs.event(
            "adapter.serving", log_key=self.verifier_key, ed25519=sodium.ed25519_by(), **ports
        )

    def stop(self) -> None:
        """Finish calls in flight within the drain time, then end."""
        self._health.draining()
        logs.event("adapter.draining")
        finished = self.listeners.streams.drain(
            self.config.drain_seconds, self.state.changes.announce
        )
        ended = self.listeners.stop(self.config.drain_seconds)
        for ticker in self._tickers:
            ticker.stop()
        if ended:
            self.state.membership.leave()
        self.drift.end()
        self._health.stop()
        self.state.store.close()
        self.state.token.close()
        logs.event("adapter.stopped", finished=finished)


def _reconcile(token: Token, store: Store, policy: Policy, metrics: Metrics) -> None:
    """Every key of the store is in the token, and whatever else is there is an incident. The pepper
    of a tenant that the policy has no more stays: the log's commitments are under it. That of an
    erased one must be gone; `custody` sees to it.
    """
    rows = store.key_versions()
    erased = {one.tenant for one in store.erasures()}
    tenants = sorted({*policy.tenants, *(row.tenant for row in rows)} - erased)
    assert_inventory(token, rows, tenants, store.authorities())
    for label in unaccounted(token, store, tenants, lambda: time.sleep(MAKING_SECONDS)):
        metrics.violated("I8", unknown_object=label)


def run_until_signalled(replica: Replica) -> None:
    """Serve until SIGTERM or SIGINT."""
    shutdown = ShutdownSignal()
    replica.start()
    shutdown.wait()
    force_exit_after(replica.drain_seconds + SPARE_SECONDS)
    replica.stop()
