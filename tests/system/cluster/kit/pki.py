"""The cluster's certificates, and kubeconfigs that speak for somebody.

One authority signs them all; what an identity may do follows from its name and groups
(`system:masters` may do everything).
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = datetime.timedelta(days=2)
MASTERS = "system:masters"


@dataclass(frozen=True, slots=True)
class Credential:
    certificate: bytes
    key: bytes

    def write(self, stem: Path) -> Credential:
        stem.with_suffix(".crt").write_bytes(self.certificate)
        private = stem.with_suffix(".key")
        private.touch(mode=0o600)
        private.write_bytes(self.key)
        return self


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def key_pair() -> tuple[bytes, bytes]:
    """A P-256 key and its public part, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem(key), public


def alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class ClusterAuthority:
    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test cluster")])
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = certificate.public_bytes(serialization.Encoding.PEM)

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + LIFETIME)
        )

    def issue(
        self, name: str, *, groups: tuple[str, ...] = (), names: tuple[str, ...] = ()
    ) -> Credential:
        """A client's certificate for user `name` in `groups`; a server's when it has DNS names or
        addresses in `names`.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject.append(x509.NameAttribute(NameOID.COMMON_NAME, name))
        usage = ExtendedKeyUsageOID.SERVER_AUTH if names else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = self._builder(x509.Name(subject), key).add_extension(
            x509.ExtendedKeyUsage([usage]), critical=False
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([alternative(one) for one in names]), critical=False
            )
        certificate = builder.sign(self._key, hashes.SHA256())
        return Credential(certificate.public_bytes(serialization.Encoding.PEM), pem(key))

    def kubeconfig(self, server: str, who: Credential, namespace: str = "default") -> str:
        """JSON is YAML: every client reads it."""

        def encoded(content: bytes) -> str:
            return base64.b64encode(content).decode()

        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [
                    {
                        "name": "node",
                        "cluster": {
                            "server": server,
                            "certificate-authority-data": encoded(self.certificate),
                        },
                    }
                ],
                "users": [
                    {
                        "name": "user",
                        "user": {
                            "client-certificate-data": encoded(who.certificate),
                            "client-key-data": encoded(who.key),
                        },
                    }
                ],
                "contexts": [
                    {
                        "name": "node",
                        "context": {"cluster": "node", "user": "user", "namespace": namespace},
                    }
                ],
                "current-context": "node",
            },
            indent=1,
        )
