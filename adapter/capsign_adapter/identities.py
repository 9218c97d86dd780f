"""What the section [identity] brings to a replica: the authority, the certificate that it serves with, and their clockwork."""

from __future__ import annotations

from collections.abc import Callable

import grpc
from capsign_wire import logs
from capsign_wire.settings import SettingsError

from capsign_adapter.config import Config, Identity, lives
from capsign_adapter.decide.policy import Policy
from capsign_adapter.enrol.authority import Authority
from capsign_adapter.enrol.roll import Realm
from capsign_adapter.front.serving import ServingCertificate
from capsign_adapter.front.tls import CertificateFiles
from capsign_adapter.sign.edge import now_ms
from capsign_adapter.sign.watch import Ticker
from capsign_adapter.store.interface import Store
from capsign_adapter.token.interface import Token


def realm_of(identity: Identity, policy: Policy) -> Realm:
    """For whom the authorities speak."""
    return Realm(policy.trust_domain, policy.digest, lives(identity))


class Identities:
    """One replica's part in the authorities. Without [identity] there is only the certificate in files."""

    def __init__(self, config: Config, policy: Policy, token: Token, store: Store) -> None:
        """Takes up what is due, and issues the serving certificate.

        Raises SettingsError, FailureError, OSError (a file of `client_ca`), and what token and store raise.
        """
        self._config = config
        self._seen = 0
        self.authority: Authority | None = None
        self._serving: ServingCertificate | None = None
        if config.identity is None:
            return
        self.authority = Authority(token, store, realm_of(config.identity, policy))
        self.authority.look(now_ms)
        self._seen = self.bundle_sequence()
        if config.tls.source == "authority":
            own_name = f"spiffe://{policy.trust_domain}/capsign/adapter"
            self._serving = ServingCertificate(self.authority, own_name, config.tls.names, config.tls.client_ca, now_ms)

    def bundle_sequence(self) -> int:
        """The number of the trust bundle; 0 where there is none."""
        return self.authority.bundle().sequence if self.authority is not None else 0

    def credentials(self, *, demand_certificate: bool) -> grpc.ServerCredentials:
        """For a listener: mTLS, or for callers without a certificate. Raises SettingsError, OSError."""
        if self._serving is not None:
            return self._serving.credentials(demand_certificate=demand_certificate)
        tls = self._config.tls
        if tls.certificate is None or tls.private_key is None or tls.client_ca is None:
            raise SettingsError("The section [tls] names no files and no authority.", key="tls")
        return CertificateFiles(tls.certificate, tls.private_key, tls.client_ca if demand_certificate else None).credentials()

    def tickers(self, announce: Callable[[], None]) -> list[Ticker]:
        """The clockwork, not yet started. `announce` is called when the bundle became another."""
        identity = self._config.identity
        if identity is None:
            return []

        def look() -> None:
            assert self.authority is not None
            try:
                self.authority.look(now_ms)
            finally:
                if self._serving is not None:
                    self._serving.look()
                sequence = self.bundle_sequence()
                if sequence != self._seen:
                    self._seen = sequence
                    logs.event("trust.changed", sequence=sequence)
                    announce()

        return [Ticker("authority", lives(identity).look_ms / 1000, look)]
