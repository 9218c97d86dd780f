"""Builds the certificates that an authority signs: its own, X.509-SVIDs, and the adapter's serving
certificates.

SPIFFE X509-SVID specification, sections 2 to 5, on top of RFC 5280. Every certificate has exactly
one URI name, its SPIFFE ID.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def root_certificate(
    key: ec.EllipticCurvePrivateKey,
    version: int,
    trust_domain: str,
    not_before_ms: int,
    not_after_ms: int,
) -> bytes:
    """The authority's own certificate, DER: self-signed, for no intermediates, with the trust
    domain as its SPIFFE ID.

    The subject differs from version to version, so that no verifier takes one for another that it
    follows.
    """
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"capsign authority {version}")])
    public = key.public_key()
    uri = x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")
    return (
        _dated(name, name, public, not_before_ms, not_after_ms)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        .add_extension(_key_id(public), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


def leaf_certificate(
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    public: ec.EllipticCurvePublicKey,
    spiffe_id: str,
    not_before_ms: int,
    not_after_ms: int,
    names: Sequence[str] = (),
) -> bytes:
    """An X.509-SVID, DER: good for both sides of a TLS connection. `names` are DNS names and
    addresses that it serves under.

    The subject is empty, so the alternative name is critical (RFC 5280, section 4.2.1.6).
    """
    alternative = [
        x509.UniformResourceIdentifier(spiffe_id),
        *(_general_name(name) for name in names),
    ]
    issuer_id = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        _dated(authority.subject, x509.Name([]), public, not_before_ms, not_after_ms)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        .add_extension(x509.SubjectAlternativeName(alternative), critical=True)
        .add_extension(_key_id(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id),
            critical=False,
        )
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


def _dated(
    issuer: x509.Name,
    subject: x509.Name,
    public: ec.EllipticCurvePublicKey,
    not_before_ms: int,
    not_after_ms: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())  # 159 bits from the system's generator
        .not_valid_before(datetime.fromtimestamp(not_before_ms / 1000, UTC))
        .not_valid_after(datetime.fromtimestamp(not_after_ms / 1000, UTC))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_id(public: ec.EllipticCurvePublicKey) -> x509.SubjectKeyIdentifier:
    """RFC 7093, section 2, method 1: the first 160 bits of SHA-256 of the key's bits."""
    bits = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return x509.SubjectKeyIdentifier(hashlib.sha256(bits).digest()[:20])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
