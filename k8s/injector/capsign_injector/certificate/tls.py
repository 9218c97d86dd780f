"""The TLS context of the listener, and how its certificate is replaced while it runs.

Loading a certificate into a live context keeps the old one beside it if their key types differ, and
needs files. So each certificate has a context of its own, loaded from memory, and each handshake is
switched to the newest one as it begins. Open connections keep theirs.
"""

from __future__ import annotations

import os
import ssl

from capsign_injector.certificate.certificates import CertificateError, Pair


class ServingTls:
    """TLS 1.2 and later, HTTP/1.1. Until a certificate is loaded every handshake fails."""

    def __init__(self) -> None:
        self._newest: ssl.SSLContext | None = None
        self.pair: Pair | None = None
        """The certificate in use."""
        self.generation = 0
        """How many certificates were loaded."""
        self.context = _context()
        """The context for the listener; it stays the same for the life of the process."""
        # Without a name in the ClientHello it is called too.
        self.context.sni_callback = self._choose

    @property
    def loaded(self) -> bool:
        """Whether handshakes can succeed."""
        return self._newest is not None

    def load(self, pair: Pair) -> bool:
        """Use this certificate from the next handshake on; returns False if it is in use already.
        Raises CertificateError and changes nothing then.
        """
        if pair == self.pair:
            return False
        fresh = _context()
        _load(fresh, pair)
        self._newest, self.pair = fresh, pair
        self.generation += 1
        return True

    def _choose(
        self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext
    ) -> int | None:
        if self._newest is None:
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        connection.context = self._newest
        return None


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # API servers of all supported releases speak 1.3; proxies between them and a webhook may not.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load(context: ssl.SSLContext, pair: Pair) -> None:
    """Load the pair through an anonymous file in memory: OpenSSL loads from a path only, and the
    key must not be on a disk.
    """
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(pair.certificate.rstrip() + b"\n" + pair.key)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=b"")
    except (OSError, ValueError):
        raise CertificateError(
            "Certificate and private key cannot be served: they do not belong together, "
            "or one is not PEM without a passphrase."
        ) from None
    finally:
        os.close(descriptor)
