"""Stands in for the adapter's authority: issues X.509-SVIDs from a key in memory, and can be told
to fail.
"""

from __future__ import annotations

import datetime

from capsign_adapter.enrol.authority import Bundle, Issued
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

HOUR_MS = 3_600_000


class SvidAuthority:
    """`issued` has what was asked for, in order. `error` is raised in place of a certificate if it
    is set.
    """

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "capsign test")])
        self.issued: list[tuple[str, bytes]] = []
        self.error: Exception | None = None
        self.sequence = 1
        now = datetime.datetime.now(datetime.UTC)
        builder = self._builder(
            self._name, self._key.public_key(), now + datetime.timedelta(days=1)
        )
        builder = builder.add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.certificate = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.DER)

    def issue(self, spiffe_id: str, spki: bytes, now_ms: int) -> Issued:
        if self.error is not None:
            raise self.error
        self.issued.append((spiffe_id, spki))
        not_after_ms = (now_ms + HOUR_MS) // 1000 * 1000
        ends = datetime.datetime.fromtimestamp(not_after_ms / 1000, datetime.UTC)
        builder = self._builder(x509.Name([]), load_der_public_key(spki), ends)
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)])
        signed = builder.add_extension(names, critical=True).sign(self._key, hashes.SHA256())
        return Issued((signed.public_bytes(Encoding.DER),), not_after_ms, 7)

    def refresh(self) -> None:
        """There is no store behind it."""

    def bundle(self) -> Bundle:
        return Bundle(self.sequence, (self.certificate,))

    def _builder(self, subject: x509.Name, key, ends: datetime.datetime) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(ends - datetime.timedelta(days=2))
            .not_valid_after(ends)
        )
