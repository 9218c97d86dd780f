"""A development CA and the certificates it issues. Not for production: its private key lies next to
what it signs.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

TRUST_DOMAIN = "capsign.test"
SERVER_NAME = f"adapter.{TRUST_DOMAIN}"
LIFE = datetime.timedelta(days=90)
"""Life of the CA and of everything that it issues."""

BACKDATE = datetime.timedelta(minutes=5)
"""How long before they are made certificates begin, for a container whose clock is slow."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its key, as files."""

    spiffe_id: str
    certificate: Path
    private_key: Path


SPARE = datetime.timedelta(days=7)
"""A certificate that exists is replaced when less than this of its life is left."""


class DevelopmentCa:
    """A CA in a directory. Certificates that exist are kept while they last, so that a second `dev
    up` changes no identity. Without `renew` they are kept in any case, because running processes
    use them. Certificates are valid from `backdate` before they are made until `life` after.
    """

    def __init__(
        self,
        directory: Path,
        *,
        renew: bool = True,
        life: datetime.timedelta = LIFE,
        backdate: datetime.timedelta = BACKDATE,
    ) -> None:
        self._directory = directory
        self._renew = renew
        self._life, self._backdate = life, backdate
        directory.mkdir(mode=0o700, exist_ok=True)
        self.certificate_file = directory / "ca.crt"
        key_file = directory / "ca.key"
        if key_file.exists() and self.certificate_file.exists():
            key = serialization.load_pem_private_key(key_file.read_bytes(), None)
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            self._key, self._certificate = (
                key,
                x509.load_pem_x509_certificate(self.certificate_file.read_bytes()),
            )
            if not renew or _lasts(self._certificate):
                return
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "capsign development CA")])
        self._certificate = (
            self._builder(name, name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(ca=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
            )
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.UniformResourceIdentifier(f"spiffe://{TRUST_DOMAIN}")]
                ),
                False,
            )
            .sign(self._key, hashes.SHA256())
        )
        # a crash here leaves no certificate of another key
        self.certificate_file.unlink(missing_ok=True)
        _write_key(key_file, self._key)
        _write(
            self.certificate_file, self._certificate.public_bytes(serialization.Encoding.PEM), 0o644
        )

    def issue(self, name: str, path: str, *, server: bool = False) -> Identity:
        """An X.509-SVID for spiffe://<trust domain><path>. A server's also has DNS names and the
        loopback address.
        """
        identity = Identity(
            f"spiffe://{TRUST_DOMAIN}{path}",
            self._directory / f"{name}.crt",
            self._directory / f"{name}.key",
        )
        if (
            identity.certificate.exists()
            and identity.private_key.exists()
            and self._keeps(identity.certificate)
        ):
            return identity
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(identity.spiffe_id)]
        if server:
            names += [
                x509.DNSName(SERVER_NAME),
                x509.DNSName("localhost"),
                x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            ]
        usages = [
            ExtendedKeyUsageOID.CLIENT_AUTH,
            *([ExtendedKeyUsageOID.SERVER_AUTH] if server else []),
        ]
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            self._builder(
                x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
                self._certificate.subject,
                key.public_key(),
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(issuer, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        identity.certificate.unlink(missing_ok=True)
        _write_key(identity.private_key, key)
        _write(identity.certificate, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        return identity

    def _keeps(self, file: Path) -> bool:
        """Whether the certificate in this file is kept: it lasts, and this CA has issued it."""
        if not self._renew:
            return True
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
        try:
            certificate.verify_directly_issued_by(self._certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return _lasts(certificate)

    def _builder(
        self, subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - self._backdate)
            .not_valid_after(now + self._life)
        )


def _lasts(certificate: x509.Certificate) -> bool:
    return certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC) > SPARE


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    form = serialization.PrivateFormat.PKCS8
    _write(
        path,
        key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()),
        0o600,
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    # A half-written certificate would be kept by the next run: write beside, then rename.
    scratch = path.with_name(f".{path.name}.new")
    scratch.unlink(missing_ok=True)
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    scratch.replace(path)
