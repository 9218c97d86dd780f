"""Files mounted into the injector: the trust bundle for agents, and the serving certificate if
others issue it.
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
"""Seconds between two looks at the files of the serving certificate."""


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
    """The files without the text that people and editors put around PEM. A file with anything
    beside certificates is left as it is, and refused later.
    """
    try:
        found = pem.certificates(certificate)
    except ValueError:
        found = []
    if certificate.count(b"-----BEGIN ") == len(found):
        certificate = pem.written(found)
    return Pair(certificate, pem.lines(key))


class MountedCertificate:
    """Serves with files that others write, such as cert-manager. They also write the webhook
    configuration.
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
        """Repeat `look` until cancelled."""
        while True:
            fault = self.look()
            if fault is not None and fault != self._said:
                logs.warning("certificate.look_failed", sentence=fault)
            self._said = fault
            await asyncio.sleep(LOOK_S)

    def look(self) -> str | None:
        """Serve with the files' present content. Returns a sentence if that is impossible; what was
        served before is served on then.
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
        """Why there is no certificate to serve with; None if there is one."""
        fault = self.look()
        return None if self._tls.loaded else f"There is no serving certificate: {fault}"

    def ends_at(self) -> int:
        """When the certificate in use ends, seconds since 1970; 0 without one."""
        return self._ends_at
