"""Makes a key pair and a certificate request for it. It is the only place at which the agent makes
a private key: that of its own TLS certificate, in memory.

`cryptography` is loaded here at the first request (11 MiB resident, 4 of them private, measured in
`docs/decisions/0013`), so agents whose identity comes from elsewhere never load it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """`der` is a PKCS#10 request (RFC 2986), `private_key` is PKCS#8 in PEM."""

    der: bytes
    private_key: bytes

    def __repr__(self) -> str:
        return "Request(...)"


def make() -> Request:
    """A new P-256 key pair and its request. The request names nobody, because the service account
    token says who the pod is. Takes milliseconds; 0.1 s the first time.
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
