"""Identity is made here and nowhere else: the verified peer certificate gives the workload, and the
caller's words never do.

gRPC also offers the SPIFFE ID by itself, as a C string: it ends at the first zero byte of the URI.
So the certificate is read instead, by `capsign_wire.svid`, once for each one that is seen.
"""

from __future__ import annotations

import hashlib
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
    """The peer of a call.

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


def demand_tls_1_3(context: grpc.ServicerContext) -> None:
    """Raises FailureError TLS_TOO_OLD."""
    if context.auth_context().get("ssl_tls_version") != [b"TLSv1.3"]:  # type: ignore[comparison-overlap] # the stubs lack the list
        raise FailureError(failures_pb2.REASON_TLS_TOO_OLD, "This connection does not use TLS 1.3.")


@lru_cache(maxsize=1024)
def _read(pem: bytes) -> Peer | str:
    """The peer, or why this certificate is nobody's. Both are remembered: neither costs anything
    the next time.
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
