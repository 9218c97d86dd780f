"""The identity parts of a replica: the certificate authority, its serving certificate, enrolment,
and their tickers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from capsign_wire import logs
from capsign_wire.adapter.v1 import identity_pb2_grpc
from capsign_wire.settings import SettingsError
from capsign_wire.telemetry import Metrics

from capsign_adapter.config import Config, Identity, lifetimes
from capsign_adapter.decide.policy import PolicyNow
from capsign_adapter.decide.rate import Buckets
from capsign_adapter.enrol.api import Api
from capsign_adapter.enrol.authority import Authority
from capsign_adapter.enrol.cluster import Cluster
from capsign_adapter.enrol.enrolment import Enrolment, Settings
from capsign_adapter.enrol.publisher import BundlePublisher
from capsign_adapter.enrol.rehearsal import Rehearsal
from capsign_adapter.enrol.roll import Realm
from capsign_adapter.front.enrolment_server import EnrolmentServer
from capsign_adapter.front.identity_servicer import IdentityServicer
from capsign_adapter.front.public_tls import Pair
from capsign_adapter.front.serving import ServingCertificate
from capsign_adapter.front.tls import CertificateFiles, read, read_authorities
from capsign_adapter.sign.clock import monotonic_ms, now_ms
from capsign_adapter.sign.snapshot import Snapshots
from capsign_adapter.sign.tickers import Ticker
from capsign_adapter.store.interfaces.whole import Store
from capsign_adapter.token.interface import Token


def realm_of(identity: Identity, policy: PolicyNow) -> Realm:
    """Returns the realm of the authorities. The trust domain of a deployment never changes."""
    return Realm(policy().trust_domain, lambda: policy().digest, lifetimes(identity))


class Identities:
    """The identity parts of one replica. Without the section [identity] there is only the
    certificate in files.
    """

    def __init__(
        self,
        config: Config,
        token: Token,
        store: Store,
        snapshots: Snapshots,
        metrics: Metrics,
        *,
        trial: bool = False,
    ) -> None:
        """Takes steps of the authority schedule that are due, and issues the serving certificate.
        `trial`: changes nothing, and issues a certificate that nobody trusts.

        Raises SettingsError, FailureError, OSError (a file of `client_ca`), and what token and
        store raise.
        """
        self._config = config
        self._metrics = metrics
        self._seen = 0
        self._authority: Authority | None = None
        self._serving: ServingCertificate | None = None
        self._enrolment: Enrolment | None = None
        self._publisher: BundlePublisher | None = None
        self._watched: CertificateFiles | None = None
        if config.identity is None:
            return
        self._authority = authority = (Rehearsal if trial else Authority)(
            token, store, realm_of(config.identity, snapshots.policy)
        )
        if not trial:
            authority.look(now_ms)
        self._seen = self.bundle_sequence()
        metrics.gauge("capsign.authority.remaining", lambda: authority.remaining_s(now_ms()))
        if config.tls.source == "authority":
            own_name = f"spiffe://{snapshots.policy().trust_domain}/capsign/adapter"
            self._serving = ServingCertificate(
                authority, own_name, config.tls.names, config.tls.client_ca, now_ms, trial=trial
            )
            metrics.gauge("capsign.certificate.remaining", self._serving.remaining_s)
        kubernetes = config.identity.kubernetes
        if kubernetes is not None:
            api = Api(kubernetes.api_server, kubernetes.token_file, kubernetes.ca_file)
            if trial:
                api.demand_files()
            cluster = Cluster(api)
            rules = Settings(
                kubernetes.audience,
                kubernetes.pod_address_check,
                config.control.refusals_per_second,
                kubernetes.host_network_pods,
            )
            self._enrolment = Enrolment(
                snapshots.policy,
                cluster,
                authority,
                store,
                lambda: snapshots.refresh().revoked,
                rules,
                now_ms,
                Buckets(monotonic_ms),
            )
            if kubernetes.bundle_config_map:
                self._publisher = BundlePublisher(cluster, authority, kubernetes.bundle_config_map)

    def bundle_sequence(self) -> int:
        """Returns the sequence of the trust bundle; 0 if there is none."""
        return self._authority.bundle().sequence if self._authority is not None else 0

    def credentials(self, *, demand_certificate: bool) -> grpc.ServerCredentials:
        """Returns the credentials of a listener: with mTLS, or for callers without a certificate.
        Raises SettingsError, OSError.
        """
        if self._serving is not None:
            return self._serving.credentials(demand_certificate=demand_certificate)
        tls = self._config.tls
        if tls.certificate is None or tls.private_key is None or tls.client_ca is None:
            raise SettingsError("The section [tls] names no files and no authority.", key="tls")
        files = CertificateFiles(
            tls.certificate, tls.private_key, tls.client_ca if demand_certificate else None
        )
        credentials = files.credentials()
        # one of its own: those that gRPC asks look only when somebody connects
        if self._watched is None:
            self._watched = CertificateFiles(tls.certificate, tls.private_key, None)
            self._watched.load()
            self._metrics.gauge(
                "capsign.certificate.remaining", lambda: self._remaining_s(now_ms())
            )
        return credentials

    def pair(self, *, with_clients: bool = False) -> Pair:
        """Returns the certificate that is served now, and its key, for the listener for verifiers;
        `with_clients`: and whom to trust for clients. Raises OSError.
        """
        clients = self._client_ca() if with_clients else b""
        if self._serving is not None:
            return self._serving.pair._replace(client_ca=clients)
        tls = self._config.tls
        assert tls.certificate is not None, "config.load demands it"
        assert tls.private_key is not None, "config.load demands it"
        return Pair(read(tls.certificate), read(tls.private_key), clients)

    def _client_ca(self) -> bytes:
        if self._serving is not None:
            return self._serving.client_ca
        path = self._config.tls.client_ca
        assert path is not None, "config.load demands it"
        return read_authorities(path)

    def _remaining_s(self, now: int) -> float:
        """Returns the seconds until the certificate in the files expires."""
        return (
            max(0.0, (self._watched.look().ends_ms - now) / 1000)
            if self._watched is not None
            else 0.0
        )

    def fault(self) -> str:
        """Returns the fault that health reports: clients cannot accept the serving certificate, or
        none can be issued. Empty if all is well.
        """
        now = now_ms()
        if self._authority is not None and not self._authority.remaining_s(now):
            return "authority_ended"
        if self._serving is not None:
            return "" if self._serving.remaining_s() else "certificate_ended"
        return self._watched.look().fault(now) if self._watched is not None else ""

    def register(self, registrar: Any) -> None:
        """Register renewal and the trust bundle on the main listener."""
        if self._enrolment is not None and self._authority is not None:
            servicer = IdentityServicer(self._enrolment, self._authority, self._metrics)
            identity_pb2_grpc.add_IdentityServiceServicer_to_server(servicer, registrar)

    def enrolment_server(self, address: str, connections: int) -> EnrolmentServer:
        """Returns the enrolment listener. Raises RuntimeError if the address cannot be bound."""
        assert self._enrolment is not None, "config.load demands it"
        credentials = self.credentials(demand_certificate=False)
        return EnrolmentServer(address, credentials, self._enrolment, self._metrics, connections)

    def tickers(self, announce: Callable[[], None]) -> list[Ticker]:
        """Returns the tickers, not yet started. `announce` is called when the trust bundle has
        changed.
        """
        identity = self._config.identity
        if identity is None:
            return []
        seconds = lifetimes(identity).poll_ms / 1000
        made = [Ticker("authority", seconds, lambda: self._look(announce))]
        publisher = self._publisher
        # on a thread of its own: the cluster may be slow, and authorities must not wait for it
        if publisher is not None:
            made.append(Ticker("bundle", seconds, lambda: _published(publisher)))
        return made

    def _look(self, announce: Callable[[], None]) -> None:
        assert self._authority is not None
        try:
            self._authority.look(now_ms)
        finally:
            # Whatever failed: what is known by now is believed, and a certificate renewed.
            sequence = self.bundle_sequence()
            if sequence != self._seen:
                self._seen = sequence
                logs.event("trust.changed", sequence=sequence)
                announce()
            if self._serving is not None:
                self._serving.look()


def _published(publisher: BundlePublisher) -> None:
    publisher.publish()
