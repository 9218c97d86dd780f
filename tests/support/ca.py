"""A certificate authority for tests: X.509-SVIDs, good ones and each kind of bad one."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Credential:
    """PEM of a certificate and of its private key."""

    certificate: bytes
    private_key: bytes

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """Write NAME.pem and NAME.key, readable by the owner only."""
        paths = (directory / f"{name}.pem", directory / f"{name}.key")
        for path, data in zip(paths, (self.certificate, self.private_key), strict=True):
            path.write_bytes(data)
            path.chmod(0o600)
        return paths


class Authority:
    """Issues from a root that lives as long as the test."""

    def __init__(
        self,
        name: str = "test CA",
        *,
        plain: bool = False,
        life: datetime.timedelta = datetime.timedelta(hours=1),
    ) -> None:
        """A negative life has ended already. `plain`: as many companies have them, without key
        usage, and without key identifiers in what it issues.
        """
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self._plain = plain
        builder = self._builder(self._name, self._key, life)
        builder = builder.add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        if not plain:
            builder = builder.add_extension(_SIGNS_CERTIFICATES, critical=True)
        self.certificate = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def issue(
        self,
        *uris: str | bytes,
        dns: tuple[str, ...] = (),
        life: datetime.timedelta = datetime.timedelta(hours=1),
        begins: datetime.timedelta = datetime.timedelta(hours=-2),
        extensions: tuple[x509.ExtensionType, ...] = (),
        key: Any = None,
    ) -> Credential:
        """A certificate with these URI and DNS names. A negative life has ended already; `begins`
        is from now on.

        A URI in bytes stands in the certificate as it is, whatever it is.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(
            _name("test"), key, life + max(begins, datetime.timedelta()), begins
        )
        if uris or dns:
            builder = builder.add_extension(_names(uris, dns), critical=False)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=True)
        signed = builder.sign(self._key, hashes.SHA256())
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Credential(signed.public_bytes(Encoding.PEM), private)

    def _builder(
        self,
        subject: x509.Name,
        key: Any,
        life: datetime.timedelta,
        begins: datetime.timedelta = datetime.timedelta(hours=-2),
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder()
        if not self._plain:
            authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
            builder = builder.add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            builder = builder.add_extension(authority, critical=False)
        return (
            builder.subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + life)
        )


def _names(uris: tuple[str | bytes, ...], dns: tuple[str, ...]) -> x509.UnrecognizedExtension:
    """A subjectAltName, in DER by hand: the library would refuse to write the bad ones."""
    parts = [b"\x86" + _sized(uri.encode() if isinstance(uri, str) else uri) for uri in uris]
    parts += [b"\x82" + _sized(name.encode()) for name in dns]
    return x509.UnrecognizedExtension(
        x509.SubjectAlternativeName.oid, b"\x30" + _sized(b"".join(parts))
    )


def _sized(content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(length)]) + length + content


def usage(*, signs: bool, signs_certificates: bool, signs_lists: bool = False) -> x509.KeyUsage:
    """What the key of a certificate may be used for."""
    return x509.KeyUsage(
        digital_signature=signs,
        key_cert_sign=signs_certificates,
        crl_sign=signs_lists,
        content_commitment=False,
        key_encipherment=not signs,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
