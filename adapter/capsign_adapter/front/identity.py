"""Identity is made here and nowhere else: the verified peer certificate gives the workload, and the caller's words never do."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import grpc
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from capsign_adapter.decide.peer import Peer

MAX_SPIFFE_ID = 255
"""Longest SPIFFE ID that an entry of the log can name, bytes. The SPIFFE specification allows 2048."""


def peer_of(context: grpc.ServicerContext) -> Peer:
    """The peer of a call.

    Raises FailureError TLS_TOO_OLD or IDENTITY_UNKNOWN. gRPC has verified the chain; it has no minimum TLS version, so that is
    checked here on every call (I10).
    """
    demand_tls_1_3(context)
    auth = context.auth_context()
    names, certificate = auth.get("peer_spiffe_id", ()), auth.get("x509_pem_cert", ())
    if len(names) != 1 or len(certificate) != 1:
        raise FailureError(failures_pb2.REASON_IDENTITY_UNKNOWN, "The certificate has no single SPIFFE ID.")
    if len(bytes(names[0])) > MAX_SPIFFE_ID:
        raise FailureError(failures_pb2.REASON_IDENTITY_UNKNOWN, f"A SPIFFE ID has at most {MAX_SPIFFE_ID} bytes here.")
    return _peer(bytes(names[0]), bytes(certificate[0]))


def demand_tls_1_3(context: grpc.ServicerContext) -> None:
    """Raises FailureError TLS_TOO_OLD."""
    if context.auth_context().get("ssl_tls_version") != [b"TLSv1.3"]:  # type: ignore[comparison-overlap] # the stubs lack the list
        raise FailureError(failures_pb2.REASON_TLS_TOO_OLD, "This connection does not use TLS 1.3.")


@lru_cache(maxsize=1024)
def _peer(name: bytes, pem: bytes) -> Peer:
    certificate = x509.load_pem_x509_certificate(pem)
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    not_after_ms = int(certificate.not_valid_after_utc.timestamp() * 1000)
    return Peer(name.decode("ascii"), hashlib.sha256(spki).digest(), not_after_ms)
