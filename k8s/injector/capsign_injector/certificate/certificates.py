"""X.509 of the injector's own server: certificates and keys as PEM, and their content. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from capsign_wire.pem import certificates
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

BACKDATED_S = 3_600
"""Seconds before it is made at which a certificate becomes valid."""

MAX_CERTIFICATES = 32
"""Most certificates read from one text."""


class CertificateError(Exception):
    """A certificate or key is not as it must be. The text says what is wrong and never quotes
    it.
    """


@dataclass(frozen=True, slots=True)
class Pair:
    """PEM of a certificate and of its private key (PKCS #8, no passphrase)."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "Pair(...)"


@dataclass(frozen=True, slots=True)
class Facts:
    """What decisions about a certificate are based on. Times are seconds since 1970. DER identifies
    it, independent of how its PEM is formatted.
    """

    der: bytes
    not_before: int
    not_after: int
    names: frozenset[str]
    authority: bool

    def valid(self, now: int) -> bool:
        """Whether it is valid at `now`."""
        return self.not_before <= now < self.not_after

    def two_thirds(self) -> int:
        """When two thirds of its lifetime are over."""
        begin = self.not_before + BACKDATED_S
        return begin + (self.not_after - begin) * 2 // 3


def read(pem: bytes) -> Facts:
    """Read the one certificate in `pem`. Raises CertificateError."""
    found = read_all(pem)
    if len(found) != 1:
        raise CertificateError(f"There must be one certificate, not {len(found)}.")
    return found[0]


def read_all(pem: bytes) -> tuple[Facts, ...]:
    """Read every certificate in `pem`, up to MAX_CERTIFICATES. Raises CertificateError."""
    if pem.count(b"-----BEGIN ") > MAX_CERTIFICATES:
        raise CertificateError(f"There are more than {MAX_CERTIFICATES} certificates in it.")
    if not pem.strip():
        return ()
    try:
        found = certificates(pem)
        if pem.count(b"-----BEGIN ") != len(found):
            raise CertificateError(
                "There is something beside certificates in it. Only certificates may be published."
            )
        if not found:
            raise CertificateError("It is not PEM of X.509 certificates.")
        return tuple(_facts(x509.load_der_x509_certificate(one)) for one in found)
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError("It is not PEM of X.509 certificates.") from None


def normal(pem: bytes) -> bytes:
    """The certificates in `pem` without comments, with uniform line ends. Raises
    CertificateError.
    """
    return b"".join(
        x509.load_der_x509_certificate(one.der).public_bytes(serialization.Encoding.PEM)
        for one in read_all(pem)
    )


def refuse_strangers(authority: bytes, pair: Pair) -> None:
    """Raises CertificateError unless key and certificate of `pair` fit, and `authority` (PEM) has
    signed it.
    """
    signer = _certificate(authority)
    certificate, _ = parse(pair)
    try:
        certificate.verify_directly_issued_by(signer)
    except (ValueError, TypeError, InvalidSignature):
        raise CertificateError(
            "The serving certificate was not signed by the authority beside it."
        ) from None


def refuse_split(pair: Pair) -> None:
    """Raises CertificateError unless key and certificate of `pair` fit."""
    parse(pair)


def refuse_unservable(chain: bytes, now: int) -> None:
    """Raises CertificateError if no API server would accept the first of these certificates (PEM)
    now.
    """
    leaf = x509.load_der_x509_certificate(certificates(chain)[0])
    facts = _facts(leaf)
    key = leaf.public_key()
    if not isinstance(key, rsa.RSAPublicKey | ed25519.Ed25519PublicKey) and not (
        isinstance(key, ec.EllipticCurvePublicKey)
        and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1)
    ):
        raise CertificateError(
            "The certificate's key is of a kind that API servers do not take. Have one "
            "issued for P-256."
        )
    if not facts.names:
        raise CertificateError(
            "The certificate has no DNS name: no API server takes it. Have one issued "
            "for the Service's name."
        )
    if not facts.valid(now):
        begins, ends, clock = (
            datetime.fromtimestamp(at, UTC) for at in (facts.not_before, facts.not_after, now)
        )
        raise CertificateError(
            f"The certificate is valid from {begins:%Y-%m-%d %H:%M:%S} to "
            f"{ends:%Y-%m-%d %H:%M:%S} UTC, and this machine's clock "
            f"says {clock:%Y-%m-%d %H:%M:%S} UTC. Have another issued, or set the clock."
        )


def _certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError("It is not PEM of an X.509 certificate.") from None


def parse(pair: Pair) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Certificate and key of a pair that fit. Raises CertificateError."""
    certificate = _certificate(pair.certificate)
    try:
        key = serialization.load_pem_private_key(pair.key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise CertificateError("The private key is not PEM without a passphrase.") from None
    if (
        not isinstance(key, ec.EllipticCurvePrivateKey)
        or key.public_key() != certificate.public_key()
    ):
        raise CertificateError("Certificate and private key do not belong together.")
    return certificate, key


def _facts(certificate: x509.Certificate) -> Facts:
    names: frozenset[str] = frozenset()
    authority = False
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            names = frozenset(extension.value.get_values_for_type(x509.DNSName))
            names |= frozenset(
                str(one) for one in extension.value.get_values_for_type(x509.IPAddress)
            )
        elif isinstance(extension.value, x509.BasicConstraints):
            authority = extension.value.ca
    return Facts(
        der=certificate.public_bytes(serialization.Encoding.DER),
        not_before=int(certificate.not_valid_before_utc.timestamp()),
        not_after=int(certificate.not_valid_after_utc.timestamp()),
        names=names,
        authority=authority,
    )
