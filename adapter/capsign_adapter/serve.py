"""One replica: everything put together, in the order in which a call passes through it, and taken
apart again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
from capsign_wire import addresses, logs, runtime, settings
from capsign_wire.adapter.v1 import (
    admin_pb2_grpc,
    capability_pb2_grpc,
    evidence_pb2_grpc,
    signing_pb2_grpc,
)
from capsign_wire.lenient import LenientRegistrar
from capsign_wire.memory_limit import memory_limit
from capsign_wire.rpc_metrics import MeasuredRegistrar
from capsign_wire.telemetry import Metrics
from capsign_wire.tracing import Tracer

from capsign_adapter.algorithms.expand import wipe
from capsign_adapter.config import Config
from capsign_adapter.decide.biscuits import Mint, Verifier
from capsign_adapter.decide.budget import Budget
from capsign_adapter.decide.evidence_quota import EvidenceQuota
from capsign_adapter.decide.handle_cache import HandleCache
from capsign_adapter.decide.policy import Policy
from capsign_adapter.decide.rate import Buckets
from capsign_adapter.ending import SPARE_SECONDS, Ending, bound
from capsign_adapter.front.admin_server import AdminServer
from capsign_adapter.front.admin_servicer import AdminServicer
from capsign_adapter.front.batch_watch import BatchWatch
from capsign_adapter.front.capability_servicer import CapabilityServicer
from capsign_adapter.front.charging import ChargingRegistrar
from capsign_adapter.front.enrolment_server import EnrolmentServer
from capsign_adapter.front.evidence_servicer import EvidenceServicer
from capsign_adapter.front.health import Health
from capsign_adapter.front.patience import PatientRegistrar
from capsign_adapter.front.places import Places
from capsign_adapter.front.pressure import LOOK_SECONDS, Pressure, Relief, memory_budget
from capsign_adapter.front.room import connections, demand_memory, raise_descriptors
from capsign_adapter.front.signing_servicer import SigningServicer
from capsign_adapter.front.streams import Streams
from capsign_adapter.front.threads import Threads
from capsign_adapter.front.tls import server_options
from capsign_adapter.identities import Identities
from capsign_adapter.keys.commitment import CommitmentKeys
from capsign_adapter.keys.keyring import CacheSettings, Keyring
from capsign_adapter.keys.mint_key import mint_seed
from capsign_adapter.keys.provision import assert_inventory, unaccounted
from capsign_adapter.sign import looks
from capsign_adapter.sign.admit import Admission
from capsign_adapter.sign.changes import Changes
from capsign_adapter.sign.charge import Charges
from capsign_adapter.sign.checkpoints import Checkpoints
from capsign_adapter.sign.condition import Condition
from capsign_adapter.sign.decision_cache import DecisionCache
from capsign_adapter.sign.edge import monotonic_ms, now_ms
from capsign_adapter.sign.fair import Lane, Turns
from capsign_adapter.sign.growth import EVERY_S, Growth
from capsign_adapter.sign.membership import CatchUp, Membership
from capsign_adapter.sign.pipeline import Pipeline
from capsign_adapter.sign.public_keys import PublicKeys
from capsign_adapter.sign.resolve import Resolutions
from capsign_adapter.sign.revocation_barrier import RevocationBarrier
from capsign_adapter.sign.snapshot import Snapshot, Snapshots
from capsign_adapter.sign.store_turns import StoreTurns
from capsign_adapter.sign.token_turns import BatchTurns, TokenTurns
from capsign_adapter.sign.watch import Ticker, tickers
from capsign_adapter.store.interfaces.whole import Store
from capsign_adapter.store.open import disk_of
from capsign_adapter.token.interface import Token

Bound = TypeVar("Bound")


MAKING_SECONDS = 1.0
"""How long a key may be in the token before it is in the store, while another process makes it."""


SWITCH_SECONDS = 0.001
"""How long a thread computes in Python while others want to. A fifth of the default: a commit has
to ask some twenty times.
"""

COMPUTING_AT_ONCE = 2
"""Batches that are worked on at the same time: one on Python's lock, one in OpenSSL, which lets go
of it.
"""


class Replica:
    """A running adapter process."""

    def __init__(
        self,
        config: Config,
        policy: Policy,
        token: Token,
        store: Store,
        metrics: Metrics,
        tracer: Tracer,
        *,
        trial: bool = False,
        memory: int | None = None,
    ) -> None:
        """Everything but `start`. `trial`: nothing is changed anywhere, because it will not be
        started (`--check-config`). `memory`: bytes that the process may take; None: what its
        control group leaves it.
        """
        listen = config.listen
        memory = memory_limit() if memory is None else memory
        demand_memory(memory, listen.streams, listen.message_bytes)
        room = connections(raise_descriptors(), listen.streams)
        assert_inventory(token, store.key_versions(), policy.tenants, store.authorities())
        for label in unaccounted(token, store, policy.tenants, lambda: time.sleep(MAKING_SECONDS)):
            metrics.violated("I8", unknown_object=label)
        self._config = config
        self._token = token
        self._store = store

        # Caches and state, emptied as one when the epoch moves.
        in_turns: Any = TokenTurns(token, Lane(1))
        aside_store: Any = StoreTurns(store, in_turns.aside)
        keyring = Keyring(
            in_turns,
            CacheSettings(config.subkeys.most, config.subkeys.seconds * 1000),
            monotonic_ms,
            in_turns.aside,
        )
        commitments = CommitmentKeys(in_turns, monotonic_ms)
        mint = _mint(token)
        verifier = Verifier(mint.public_key)
        handles = HandleCache(verifier)
        decisions = DecisionCache()

        control = config.control
        self._membership = membership = Membership(store, control.lease_ms, control.lease_margin_ms)
        barrier = RevocationBarrier(
            control.lease_ms, control.lease_margin_ms, lambda: store.control().revocation_epoch
        )

        def moved(snapshot: Snapshot) -> None:
            membership.works_under(snapshot.epoch)
            decisions.clear()
            keyring.clear()
            handles.clear()
            logs.event("epoch.moved", epoch=snapshot.epoch)

        snapshots = Snapshots(aside_store, moved, in_turns.aside)
        self._condition = condition = Condition(monotonic_ms, looks.word_of)
        condition.watch(
            {"descriptors": looks.at_descriptors, "identity": lambda: self._identities.fault()}
        )
        self._changes = Changes()
        self._catch_up = CatchUp(snapshots, barrier, membership, self._changes)
        self._streams = Streams()
        checkpoints = Checkpoints(store, token, config.log.origin, in_turns.aside)

        # The signing path.
        budget = Budget(policy, Buckets(monotonic_ms), control.work_ms_per_second * 1000)
        admission = Admission(policy, handles, keyring, commitments, budget)
        rates, refusals = Buckets(monotonic_ms), control.refusals_per_second
        turns = Turns(COMPUTING_AT_ONCE)
        written = metrics.counter("capsign.evidence.bytes")
        quota = EvidenceQuota(
            Buckets(monotonic_ms),
            control.other_evidence_mib_per_day,
            control.evidence_mib_per_day,
            lambda kind, size: written.add(kind, by=size),
        )
        charges = Charges(rates, quota, refusals)
        batches = BatchTurns(policy, turns, in_turns)
        pipeline = Pipeline(policy, admission, decisions, charges, snapshots, store, batches)
        resolutions = Resolutions(policy, admission, charges, aside_store)
        keys = PublicKeys(policy, admission, keyring, snapshots)

        # Who is who.
        self._identities = identities = Identities(
            config, policy, token, store, snapshots, metrics, trial=trial
        )

        # The services.
        self._server = grpc.server(
            Threads(listen.streams, "call"), options=server_options(room.main, listen.message_bytes)
        )
        watch = BatchWatch(metrics, tracer)
        places = Places(policy, listen.streams, Buckets(monotonic_ms), control.calls_per_second)
        signing = SigningServicer(
            pipeline, resolutions, keys, self._streams, watch, places, snapshots, barrier
        )
        capability = CapabilityServicer(
            policy,
            mint,
            handles,
            budget,
            snapshots,
            self._changes,
            self._streams,
            places,
            identities.bundle_sequence,
        )
        evidence = EvidenceServicer(policy, aside_store, checkpoints, quota, budget)
        admin = AdminServicer(policy, store, token, keyring, snapshots, self._catch_up)
        measured = LenientRegistrar(MeasuredRegistrar(self._server, metrics), listen.message_bytes)
        registrar: Any = ChargingRegistrar(
            PatientRegistrar(measured, places, places.working), policy, budget, turns, in_turns
        )
        signing_pb2_grpc.add_SigningServiceServicer_to_server(signing, registrar)
        capability_pb2_grpc.add_CapabilityServiceServicer_to_server(capability, registrar)
        evidence_pb2_grpc.add_EvidenceServiceServicer_to_server(evidence, registrar)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(admin, registrar)
        identities.register(registrar)
        credentials = identities.credentials(demand_certificate=True)
        self.port = _bind(
            "listen.address",
            listen.address,
            lambda at: self._server.add_secure_port(at, credentials),
        )
        self._admin: AdminServer | None = None
        if listen.admin_address:
            theirs = identities.credentials(demand_certificate=True)
            self._admin = _bind(
                "listen.admin_address",
                listen.admin_address,
                lambda at: AdminServer(at, theirs, policy, admin, evidence, metrics, room.admin),
            )
        self._door: EnrolmentServer | None = None
        if listen.enrolment_address:
            self._door = _bind(
                "listen.enrolment_address",
                listen.enrolment_address,
                lambda at: identities.door(at, room.enrolment),
            )
        self._health = _bind(
            "listen.health_address",
            listen.health_address,
            lambda at: Health(
                at, lambda: not condition.faults(), lambda: condition.alive, room.health
            ),
        )

        self._tickers = tickers(
            store,
            self._catch_up,
            barrier,
            checkpoints,
            lambda: condition.beat("barrier"),
            (lambda: decisions.sweep(now_ms()), keyring.sweep, commitments.sweep, places.sweep),
            retention_ms=policy.limits.intent_retention_ms,
            poll_seconds=config.control.poll_ms / 1000,
            checkpoint_seconds=config.log.checkpoint_every_ms / 1000,
            collect_seconds=config.control.collect_every_s,
        )
        waiting = [places.room, self._health.room]
        waiting += [self._door.places.room] if self._door is not None else []
        people = [self._admin.places.room] if self._admin is not None else []
        pressure = Pressure(memory_budget(memory, listen.streams, listen.message_bytes))
        relief = Relief(pressure, waiting, monotonic_ms, people=people)
        self._tickers.append(Ticker("memory", LOOK_SECONDS, lambda: _looked(relief)))
        self._tickers += identities.tickers(self._changes.announce)
        look_at_token = looks.at_token(token)
        look_at_store = looks.at_store(
            store, membership.repeat, disk_of(config.store.url), now_ms, policy.limits.clock_skew_ms
        )
        self._tickers += [
            Ticker("look.token", looks.EVERY_S, lambda: condition.look("token", look_at_token)),
            Ticker("look.store", looks.EVERY_S, lambda: condition.look("store", look_at_store)),
            Ticker("look.health", 1.0, self._health.refresh),
        ]
        growth = Growth()
        free = looks.free_of(disk_of(config.store.url), config.store.capacity_bytes)
        metrics.gauge("capsign.store.bytes", lambda: growth.bytes)
        if free is not None:
            metrics.gauge("capsign.store.free", lambda: growth.free)
            metrics.gauge("capsign.store.time_to_full", growth.time_to_full_s)
        look_at_growth = looks.at_growth(growth, store, free or (lambda _: 0), monotonic_ms)
        self._tickers.append(Ticker("growth", EVERY_S, look_at_growth))
        self.verifier_key = checkpoints.verifier_key

    @property
    def drain_seconds(self) -> float:
        """How long what is in flight has to finish."""
        return self._config.drain_seconds

    @property
    def enrolment_port(self) -> int:
        """Where those without a certificate come; 0: nowhere."""
        return self._door.port if self._door is not None else 0

    @property
    def admin_port(self) -> int:
        """Where people come; 0: where the workloads do."""
        return self._admin.port if self._admin is not None else 0

    @property
    def health_port(self) -> int:
        """Where probes come."""
        return self._health.port

    def start(self) -> None:
        """Make itself known to whoever revokes, listen, then say so."""
        runtime.settle()
        sys.setswitchinterval(SWITCH_SECONDS)
        self._catch_up.join()
        self._server.start()
        if self._admin is not None:
            self._admin.start()
        if self._door is not None:
            self._door.start()
        for ticker in self._tickers:
            ticker.start()
        self._health.serving()
        ports = {
            "port": self.port,
            "admin_port": self.admin_port,
            "enrolment_port": self.enrolment_port,
            "health_port": self.health_port,
        }
        logs.event("adapter.serving", log_key=self.verifier_key, **ports)

    def stop(self) -> None:
        """Finish what is in flight within the drain time, then end."""
        self._health.draining()
        logs.event("adapter.draining")
        finished = self._streams.drain(self._config.drain_seconds, self._changes.announce)
        if self._door is not None:
            self._door.stop(1.0)
        ended = self._server.stop(grace=1.0).wait(timeout=self._config.drain_seconds)
        if self._admin is not None:
            # last: a stopping adapter too may have to be told
            ended = self._admin.stop(1.0) and ended
        for ticker in self._tickers:
            ticker.stop()
        if ended:
            self._membership.leave()
        self._health.stop()
        self._store.close()
        self._token.close()
        logs.event("adapter.stopped", finished=finished)


def _looked(relief: Relief) -> None:
    relief.look()


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


def _mint(token: Token) -> Mint:
    seed = mint_seed(token)
    try:
        return Mint(bytes(seed))
    finally:
        wipe(seed)


def run_until_signalled(replica: Replica) -> None:
    """Serve until SIGTERM or SIGINT."""
    ending = Ending()
    replica.start()
    ending.wait()
    bound(replica.drain_seconds + SPARE_SECONDS)
    replica.stop()
