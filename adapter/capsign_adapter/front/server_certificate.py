"""Checks whether a certificate in a file can be served. With one that cannot, gRPC would bind the
port and fail every handshake without saying why.

It runs at the start, at every change of the files and by `--check-config`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from capsign_wire import svid
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID


@dataclass(frozen=True, slots=True)
class Validity:
    """When a certificate begins and ends, milliseconds since 1970."""

    begins_ms: int
    ends_ms: int

    def fault(self, now_ms: int) -> str:
        """Returns the fault that health reports: empty while the certificate is valid."""
        if now_ms < self.begins_ms:
            return "certificate_not_yet_valid"
        return "certificate_ended" if now_ms >= self.ends_ms else ""


def servable(path: Path, pem: bytes, now_ms: int) -> Validity:
    """Returns the validity of the first certificate in `pem`. Raises OSError that names the file,
    its fault (not valid now is one) and the fix.
    """
    try:
        leaf = x509.load_pem_x509_certificates(pem)[0]
        kind = _kind(leaf)
        names, usage, purposes = (
            _value(leaf, each)
            for each in (x509.SubjectAlternativeName, x509.KeyUsage, x509.ExtendedKeyUsage)
        )
    except (
        ValueError,
        UnsupportedAlgorithm,
        x509.InvalidVersion,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ):
        raise OSError(f"The certificate {path} cannot be read. Write it anew.") from None
    if not kind:
        raise OSError(
            f"The certificate {path} has a key that gRPC cannot serve. Have one issued "
            f"{svid.KEYS_SHOWN}."
        )
    if names is None or not any(isinstance(name, x509.DNSName | x509.IPAddress) for name in names):
        raise OSError(
            f"The certificate {path} has no DNS name and no address: no client takes it. "
            f"Have one issued with them."
        )
    if usage is not None and not usage.digital_signature:
        raise OSError(
            f"The certificate {path} does not let its key sign (key usage without "
            f"digitalSignature). Issue another."
        )
    if purposes is not None and not {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    } & set(purposes):
        raise OSError(
            f"The certificate {path} is not for a server (extended key usage without "
            f"serverAuth). Issue another."
        )
    begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    validity = Validity(int(begins.timestamp() * 1000), int(ends.timestamp() * 1000))
    fault = validity.fault(now_ms)
    if fault:
        now = datetime.fromtimestamp(now_ms / 1000, UTC)
        what, when = ("begins", begins) if fault == "certificate_not_yet_valid" else ("ended", ends)
        raise OSError(
            f"The certificate {path} is not valid: it {what} at {when:%Y-%m-%d %H:%M:%S} "
            f"UTC, and this machine's "
            f"clock says {now:%Y-%m-%d %H:%M:%S} UTC. Have another issued, or set the clock."
        )
    return validity


def lasting(path: Path, pem: bytes, now_ms: int) -> None:
    """Raises OSError if no authority in this file is valid now: one that lasts is enough."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    try:
        spans = [
            (one.not_valid_before_utc, one.not_valid_after_utc)
            for one in x509.load_pem_x509_certificates(pem)
        ]
    except (ValueError, x509.InvalidVersion):
        return  # OpenSSL has taken it; who reads it otherwise has no say
    if spans and not any(begins <= now < ends for begins, ends in spans):
        raise OSError(
            f"No certificate in the CA file {path} is valid now, by this machine's clock. "
            f"Write those of today into it."
        )


def _kind(leaf: x509.Certificate) -> bool:
    """Whether gRPC's TLS library signs handshakes with such a key."""
    key = leaf.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)
    return (
        isinstance(key, rsa.RSAPublicKey)
        and leaf.public_key_algorithm_oid == x509.PublicKeyAlgorithmOID.RSAES_PKCS1_v1_5
    )


def _value(leaf: x509.Certificate, kind: Any) -> Any:
    try:
        return leaf.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
