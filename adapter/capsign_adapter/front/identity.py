"""Step 1 of signing: the identity of a peer, taken from its verified certificate and from nothing
that the caller says. No other module makes identities.

gRPC also offers the SPIFFE ID by itself, but as a C string, which ends at the first zero byte of
the URI. So `capsign_wire.svid` reads the certificate, once for each certificate that is seen.
"""

from __future__ import annotations

import hashlib
import ssl
from functools import lru_cache

import grpc
from capsign_wire import svid
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from capsign_adapter.decide.peer import Peer


def peer_of(context: grpc.ServicerContext) -> Peer:
    """Returns the peer of a call.

    Raises FailureError TLS_TOO_OLD or IDENTITY_UNKNOWN. gRPC has verified the chain; it has no
    minimum TLS version, so that is checked here on every call (I10).
    """
    demand_tls_1_3(context)
    certificate = context.auth_context().get("x509_pem_cert", ())
    if len(certificate) != 1:
        raise FailureError(
            failures_pb2.REASON_IDENTITY_UNKNOWN, "This connection has no certificate."
        )
    found = _read(bytes(certificate[0]))
    if isinstance(found, Peer):
        return found
    raise FailureError(failures_pb2.REASON_IDENTITY_UNKNOWN, found)


def peer_of_certificate(der: bytes) -> Peer | None:
    """The peer with this certificate, whose chain a TLS library has verified; None if it names
    nobody.
    """
    found = _read(ssl.DER_cert_to_PEM_cert(der).encode())
    return found if isinstance(found, Peer) else None


def demand_tls_1_3(context: grpc.ServicerContext) -> None:
    """Raises FailureError TLS_TOO_OLD unless the connection uses TLS 1.3."""
    if context.auth_context().get("ssl_tls_version") != [b"TLSv1.3"]:  # type: ignore[comparison-overlap] # the stubs lack the list
        raise FailureError(failures_pb2.REASON_TLS_TOO_OLD, "This connection does not use TLS 1.3.")


@lru_cache(maxsize=1024)
def _read(pem: bytes) -> Peer | str:
    """Returns the peer, or a sentence that says why the certificate identifies nobody. Both are
    cached by certificate.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        name = svid.identity_of(certificate)
        spki = certificate.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        not_after_ms = int(certificate.not_valid_after_utc.timestamp() * 1000)
    except svid.NotAnSvidError as error:
        return f"The certificate of this connection is no X.509-SVID. {error}"
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        return "The certificate of this connection cannot be read."
    return Peer(name, hashlib.sha256(spki).digest(), not_after_ms)
