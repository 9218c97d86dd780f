"""Converts between the encodings of PKCS#11 (raw R ‖ S, EC points, moduli) and those that
`Algorithm` states for everybody else (DER). Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from capsign_wire.algorithms import ALGORITHMS
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from capsign_adapter.algorithms.kinds import Family
from capsign_adapter.algorithms.table import TABLE, InToken

SECRET_LEN = 32
"""Length of every generic secret, bytes; also the least that SoftHSM accepts for HMAC-SHA-256."""

RSA_BITS = 3072
RSA_EXPONENT = 65537

_SHA256_DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
"""DER of DigestInfo for SHA-256 up to the digest: RFC 8017, section 9.2, note 1."""


EC_PARAMS: Mapping[Family, bytes] = MappingProxyType(
    {
        Family.P256: bytes.fromhex("06082a8648ce3d030107"),  # 1.2.840.10045.3.1.7
        Family.P384: bytes.fromhex("06052b81040022"),  # 1.3.132.0.34
        Family.ED25519: bytes.fromhex("06032b6570"),  # 1.3.101.112, RFC 8410 section 3
    }
)
"""CKA_EC_PARAMS: the curve's object identifier in DER."""


def in_token(algorithm: int) -> InToken:
    """Returns how an algorithm runs in a token. Raises ValueError for one that does not."""
    row = TABLE.get(algorithm)
    if row is None or row.in_token is None:
        raise ValueError(f"algorithm number {algorithm} does not sign in a token")
    return row.in_token


def check_input(algorithm: int, data: bytes) -> InToken:
    """Returns the row of the algorithm. Raises ValueError unless `data` has the length that it
    takes: a truncated digest must never be signed.
    """
    row = in_token(algorithm)
    if row.input_len and len(data) != row.input_len:
        name = ALGORITHMS[algorithm].name
        raise ValueError(f"{name} signs a digest of {row.input_len} bytes, not of {len(data)}")
    return row


def digest_info(sha256: bytes) -> bytes:
    """Returns the DigestInfo that CKM_RSA_PKCS pads (RFC 8017, section 9.2)."""
    return _SHA256_DIGEST_INFO + sha256


def ecdsa_der(raw: bytes) -> bytes:
    """Returns the ECDSA-Sig-Value (RFC 3279, section 2.2.3) of R ‖ S."""
    half, odd = divmod(len(raw), 2)
    if odd or not half:
        raise ValueError("an ECDSA signature must have two halves of equal length")
    return encode_dss_signature(
        int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big")
    )


def _spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _bare_point(point: bytes, length: int) -> bytes:
    """Returns the point without an OCTET STRING around it, which PKCS#11 3.0 section 2.3.3 demands
    and some tokens omit.
    """
    if len(point) == length:
        return point
    if len(point) == length + 2 and point[:2] == bytes((0x04, length)):
        return point[2:]
    raise ValueError(
        f"CKA_EC_POINT has {len(point)} bytes, expected {length} or an OCTET STRING of them"
    )


def ec_spki(family: Family, point: bytes) -> bytes:
    """Returns the SubjectPublicKeyInfo of an EC or Edwards key from CKA_EC_POINT."""
    try:
        if family is Family.ED25519:
            return _spki(ed25519.Ed25519PublicKey.from_public_bytes(_bare_point(point, 32)))
        curve: ec.EllipticCurve = ec.SECP256R1() if family is Family.P256 else ec.SECP384R1()
        bare = _bare_point(point, 1 + 2 * (curve.key_size // 8))
        return _spki(ec.EllipticCurvePublicKey.from_encoded_point(curve, bare))
    except UnsupportedAlgorithm as error:
        raise ValueError(f"OpenSSL does not know {family.value}") from error


def rsa_spki(modulus: bytes, exponent: bytes) -> bytes:
    """Returns the SubjectPublicKeyInfo from CKA_MODULUS and CKA_PUBLIC_EXPONENT, both big-
    endian.
    """
    return _spki(
        rsa.RSAPublicNumbers(
            int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big")
        ).public_key()
    )
