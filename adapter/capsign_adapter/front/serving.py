"""The adapter's serving certificate from its own authority: nothing is on disk, it is renewed at
half-life, and it trusts the authorities of the trust bundle.

Handshakes read memory only. A ticker calls `look`, which asks token and store, so that no peer
waits for those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
from capsign_wire import logs
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from capsign_adapter.enrol.authority import Authority
from capsign_adapter.enrol.publisher import pem_of
from capsign_adapter.front.public_tls import Pair
from capsign_adapter.front.server_certificate import lasting
from capsign_adapter.front.tls import dynamic_credentials, read_authorities, stamp


class ServingCertificate:
    """The certificate of this replica, and the CAs that it trusts for clients. `look` may run on
    one thread at a time.
    """

    def __init__(
        self,
        authority: Authority,
        spiffe_id: str,
        names: Sequence[str],
        client_ca: Path | None,
        clock_ms: Callable[[], int],
        *,
        trial: bool = False,
    ) -> None:
        """Issues the first certificate. `client_ca` is a PEM file with a further CA for clients.
        If that CA has expired, no operator can connect; this stops the start in a `trial` only,
        since agents do not need it. Raises FailureError, OSError.
        """
        self._authority = authority
        self._spiffe_id = spiffe_id
        self._names = names
        self._client_ca = client_ca
        self._clock_ms = clock_ms
        self._pair = (b"", b"")
        self._made_ms, self._renew_ms = 0, 0
        self._ends_ms = 0
        self._trial = trial
        self._sequence, self._stamp = -1, (0, 0, 0)
        self._ours, self._further = b"", b""
        """PEM of the authorities in the trust bundle, and of the further CA."""
        self._generation = 0
        self.look()

    def look(self) -> None:
        """Read the trusted authorities again, then renew the certificate if that is due. What fails
        keeps its last state, and the other step is done all the same. Raises FailureError, OSError.
        """
        try:
            self._believe()
            self._believe_further()
        finally:
            now_ms = self._clock_ms()
            # made in what is the future now: a clock was put right since
            if not self._made_ms <= now_ms < self._renew_ms:
                self._renew(now_ms)

    def _believe(self) -> None:
        bundle = self._authority.bundle()
        if bundle.sequence != self._sequence:
            self._ours, self._sequence = pem_of(bundle.authorities).encode(), bundle.sequence
            self._generation += 1

    def _believe_further(self) -> None:
        if self._client_ca is None:
            return
        seen = stamp(self._client_ca)
        if seen != self._stamp:
            found = read_authorities(self._client_ca, demand_lasting=False)
            try:
                lasting(self._client_ca, found, self._clock_ms())
            except OSError:
                if self._trial:
                    raise
                logs.warning("tls.client_ca_not_valid")
            self._further, self._stamp = found, seen
            self._generation += 1

    @property
    def pair(self) -> Pair:
        """The certificate and its key, as they are served now."""
        private_key, certificate = self._pair
        return Pair(certificate, private_key)

    @property
    def client_ca(self) -> bytes:
        """PEM of whom it trusts for clients."""
        return self._ours + self._further

    def remaining_s(self) -> float:
        """Seconds until the certificate ends; 0 if it has."""
        return max(0.0, (self._ends_ms - self._clock_ms()) / 1000)

    def credentials(self, *, demand_certificate: bool) -> grpc.ServerCredentials:
        """Returns the credentials of one listener: with mTLS, or for callers that have no
        certificate yet.
        """
        seen = self._generation

        def configuration() -> grpc.ServerCertificateConfiguration:
            roots = self._ours + self._further if demand_certificate else None
            return grpc.ssl_server_certificate_configuration([self._pair], root_certificates=roots)

        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal seen
            generation = self._generation
            if generation == seen:
                return None
            seen = generation
            return configuration()

        return dynamic_credentials(configuration(), changed, demand_certificate=demand_certificate)

    def _renew(self, now_ms: int) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        issued = self._authority.issue(self._spiffe_id, spki, now_ms, self._names)
        self._pair = (
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            pem_of(issued.certificates).encode(),
        )
        self._generation += 1
        self._made_ms, self._renew_ms = now_ms, now_ms + (issued.not_after_ms - now_ms) // 2
        self._ends_ms = issued.not_after_ms
        logs.event("tls.issued", authority=issued.authority, expires_ms=issued.not_after_ms)
