"""A key pair and its certificate request. The only place of the agent that makes a private key: its
own TLS key, in memory.

`cryptography` is loaded here, at the first request and not before (11 MiB resident, 4 of them
private, measured in `docs/decisions/0013`): agents whose identity comes from elsewhere never load
it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """`der` is PKCS#10 (RFC 2986), `private_key` is PKCS#8, PEM."""

    der: bytes
    private_key: bytes

    def __repr__(self) -> str:
        return "Request(...)"


def make() -> Request:
    """A fresh P-256 key pair. The request names nobody: who the pod is, its token says.
    Milliseconds; the first time 0.1 s.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(key, hashes.SHA256())
    )
    return Request(
        request.public_bytes(serialization.Encoding.DER),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
