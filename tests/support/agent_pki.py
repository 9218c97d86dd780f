"""A certificate authority for tests: SPIFFE IDs in URI SANs, everything on P-256."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

AGENT_ID = "spiffe://capsign.test/ns/shop/sa/web"
ADAPTER_ID = "spiffe://capsign.test/adapter"


class TestCa:
    """Issues certificates; writes PEM files when asked."""

    __test__ = False

    def __init__(self, name: str = "capsign test CA") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = (
            _builder(subject, subject, self._key.public_key(), timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self._certificate.public_bytes(serialization.Encoding.DER)

    def certify(self, spiffe_id: str, key: ec.EllipticCurvePublicKey, life: timedelta) -> bytes:
        """An X.509-SVID for a key that somebody else has, DER."""
        names = [x509.UniformResourceIdentifier(spiffe_id)]
        return (
            _builder(x509.Name([]), self._certificate.subject, key, life)
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .sign(self._key, hashes.SHA256())
            .public_bytes(serialization.Encoding.DER)
        )

    def issue(
        self, spiffe_id: str, life: timedelta = timedelta(hours=1), dns: str = "localhost"
    ) -> tuple[bytes, bytes]:
        """A certificate and its key, PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [
            x509.UniformResourceIdentifier(spiffe_id),
            x509.DNSName(dns),
        ]
        names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        certificate = (
            _builder(x509.Name([]), self._certificate.subject, key.public_key(), life)
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return certificate.public_bytes(serialization.Encoding.PEM), private

    def write(
        self, directory: Path, spiffe_id: str = AGENT_ID, life: timedelta = timedelta(hours=1)
    ) -> None:
        """ca.pem, cert.pem and key.pem of one workload."""
        directory.mkdir(parents=True, exist_ok=True)
        certificate, key = self.issue(spiffe_id, life)
        (directory / "ca.pem").write_bytes(self.pem)
        (directory / "cert.pem").write_bytes(certificate)
        (directory / "key.pem").touch(mode=0o600)
        (directory / "key.pem").write_bytes(key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, life: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    start = now - timedelta(minutes=5) if life > timedelta(0) else now - timedelta(days=2)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(now + life)
    )
