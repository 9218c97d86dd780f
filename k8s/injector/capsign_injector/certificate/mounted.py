"""What is mounted into the injector: the trust bundle for agents and, where others make it, the
serving certificate.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from capsign_wire import logs, pem

from capsign_injector.certificate import certificates
from capsign_injector.certificate.certificates import CertificateError, Pair
from capsign_injector.certificate.tls import ServingTls
from capsign_injector.server_settings import Server
from capsign_injector.watched_files import FileError, WatchedFiles

LOOK_S = 2.0
"""How often the files of the serving certificate are looked at."""


def trust_bundle(path: str) -> WatchedFiles[str]:
    """The authorities that agents trust at first: PEM of one or more certificates and nothing
    else.
    """

    def read(data: bytes) -> str:
        try:
            normal = certificates.normal(data)
        except CertificateError as error:
            raise FileError(
                f"The trust bundle {path} cannot be used. {error} The adapter writes it anew."
            ) from None
        if not normal:
            raise FileError(
                f"The trust bundle {path} holds no certificate. The adapter fills it once "
                f"it serves."
            )
        return normal.decode("ascii")

    return WatchedFiles((Path(path),), read)


def pair_of(certificate: bytes, key: bytes) -> Pair:
    """Without what people and editors write around PEM. A file that holds something beside
    certificates stays as it is, to be refused.
    """
    try:
        found = pem.certificates(certificate)
    except ValueError:
        found = []
    if certificate.count(b"-----BEGIN ") == len(found):
        certificate = pem.written(found)
    return Pair(certificate, pem.lines(key))


class MountedCertificate:
    """Serves from files that somebody else keeps, such as cert-manager. The webhook configuration
    is theirs too.
    """

    def __init__(
        self, settings: Server, tls: ServingTls, clock: Callable[[], float] = time.time
    ) -> None:
        self._tls = tls
        self._clock = clock
        self._files = WatchedFiles((Path(settings.cert_file), Path(settings.key_file)), pair_of)
        self._ends_at = 0
        self._said: str | None = None

    async def run(self) -> None:
        """Look again and again. Ends when cancelled."""
        while True:
            fault = self.look()
            if fault is not None and fault != self._said:
                logs.warning("certificate.look_failed", sentence=fault)
            self._said = fault
            await asyncio.sleep(LOOK_S)

    def look(self) -> str | None:
        """Serve what the files hold now; why that cannot be, as a sentence. What is served goes on
        being served then.
        """
        try:
            pair = self._files.current()
            chain = certificates.read_all(pair.certificate)
            if not chain:
                raise CertificateError("The certificate file holds no certificate.")
            certificates.refuse_unservable(pair.certificate, int(self._clock()))
            if self._tls.load(pair):
                logs.event("certificate.loaded", generation=self._tls.generation)
        except (FileError, CertificateError) as error:
            return str(error)
        self._ends_at = chain[0].not_after
        return None

    def fault(self) -> str | None:
        """Why there is nothing to serve with; None if there is."""
        fault = self.look()
        return None if self._tls.loaded else f"There is no serving certificate: {fault}"

    def ends_at(self) -> int:
        """When the certificate served ends, seconds since 1970; 0 without one."""
        return self._ends_at
