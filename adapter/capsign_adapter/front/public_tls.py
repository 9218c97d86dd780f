"""TLS of the listener for verifiers, by Python's own TLS, from a certificate in memory."""

from __future__ import annotations

import os
import ssl
from typing import NamedTuple


class Pair(NamedTuple):
    """A certificate with its intermediates, and its private key; PEM."""

    certificate: bytes
    private_key: bytes
    client_ca: bytes = b""
    """Whom to believe about clients, who may then show a certificate; empty: none is asked for."""


def server_context(pair: Pair) -> ssl.SSLContext:
    """TLS 1.3, HTTP/1.1, client certificates only from whoever has one and where `client_ca` is
    given. OpenSSL reads a pair from a path only, so it is given an anonymous file in memory. Raises
    ssl.SSLError, which is an OSError, if certificate and key do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    context.num_tickets = 0
    if pair.client_ca:
        context.load_verify_locations(cadata=pair.client_ca.decode())
        context.verify_mode = ssl.CERT_OPTIONAL
    descriptor = os.memfd_create("pair", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pair.certificate + pair.private_key)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=b"")
    return context
