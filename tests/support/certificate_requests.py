"""Certificate requests: the one that an agent sends, and each kind that must be refused, by
name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

Builder = x509.CertificateSigningRequestBuilder


def request(
    *uris: str,
    key=None,
    change: Callable[[Builder], Builder] = lambda builder: builder,
    hashing=None,
) -> bytes:
    """DER of a request for these URIs; `change` adds what should not be there."""
    builder = Builder().subject_name(x509.Name([]))
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    key = key or ec.generate_private_key(ec.SECP256R1())
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashing or hashes.SHA256()
    return change(builder).sign(key, algorithm).public_bytes(Encoding.DER)


def _named(*names: x509.GeneralName) -> bytes:
    return request(
        change=lambda builder: builder.add_extension(
            x509.SubjectAlternativeName(names), critical=False
        )
    )


def _extended(extension: x509.ExtensionType) -> bytes:
    return request(change=lambda builder: builder.add_extension(extension, critical=True))


def _signed_by_another_key() -> bytes:
    """A request for one key with the good signature that another key made over a request of its
    own.
    """
    mine, other = x509.load_der_x509_csr(request()), x509.load_der_x509_csr(request())
    ecdsa_with_sha256 = bytes.fromhex("300a06082a8648ce3d040302")
    signature = bytes((0x03, len(other.signature) + 1, 0)) + other.signature
    body = mine.tbs_certrequest_bytes + ecdsa_with_sha256 + signature
    return bytes((0x30, 0x81, len(body))) + body


def refused() -> dict[str, bytes]:
    """Requests that must be refused whoever sends them."""
    good = request()
    own = "spiffe://capsign.test/ns/demo/sa/app"
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "admin")])
    return {
        "nothing": b"",
        "noise": b"\x30\x03\x02\x01\x00",
        "cut": good[:-1],
        "followed by more": good + b"\x00",
        "too long": good + bytes(4096),
        "P-384 key": request(key=ec.generate_private_key(ec.SECP384R1())),
        "RSA key": request(key=rsa.generate_private_key(65537, 2048)),
        "Ed25519 key": request(key=ed25519.Ed25519PrivateKey.generate()),
        "signed with SHA-512": request(hashing=hashes.SHA512()),
        "signed by another key": _signed_by_another_key(),
        "altered signature": good[:-1] + bytes((good[-1] ^ 1,)),
        "subject": x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
        .public_bytes(Encoding.DER),
        "DNS name": _named(x509.DNSName("capsign-adapter.capsign-system.svc")),
        "IP address": _named(x509.IPAddress(ipaddress.ip_address("10.0.0.1"))),
        "mail address": _named(x509.RFC822Name("root@example.test")),
        "directory name": _named(x509.DirectoryName(subject)),
        "registered id": _named(x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))),
        "other name": _named(x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x05\x00")),
        "DNS name beside its own": _named(x509.UniformResourceIdentifier(own), x509.DNSName("x")),
        "two URIs": request(own, own),
        "CA:TRUE": _extended(x509.BasicConstraints(ca=True, path_length=None)),
        "CA:FALSE": _extended(x509.BasicConstraints(ca=False, path_length=None)),
        "server authentication": _extended(
            x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH])
        ),
        "unknown extension": _extended(
            x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
        ),
        "challenge password": request(
            change=lambda builder: builder.add_attribute(
                x509.ObjectIdentifier("1.2.840.113549.1.9.7"), b"secret"
            )
        ),
    }
