"""Key ids: RFC 7638 thumbprints of public keys, and a substitute for HS256, which has no public
key.
"""

from __future__ import annotations

import hashlib
import json
import struct
from base64 import urlsafe_b64encode

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

HS256_DOMAIN = b"capsign1 hs256 kid"
CURVES = {"secp256r1": "P-256", "secp384r1": "P-384"}
"""JOSE names of the curves in the algorithm table."""


def _base64url(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()


def _integer(value: int, length: int = 0) -> str:
    return _base64url(value.to_bytes(length or (value.bit_length() + 7) // 8, "big"))


def public_members(spki: bytes) -> dict[str, str]:
    """Returns the members of the JWK (RFC 7517) of a DER SubjectPublicKeyInfo: those that RFC 7638
    section 3.2 (EC, RSA), RFC 8037 (OKP) and RFC 9964 (AKP) say a thumbprint covers.

    Raises ValueError if the bytes are not a public key of an algorithm in the table.
    """
    key = load_der_public_key(spki)
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in CURVES:
        size, point = key.curve.key_size // 8, key.public_numbers()
        return {
            "crv": CURVES[key.curve.name],
            "kty": "EC",
            "x": _integer(point.x, size),
            "y": _integer(point.y, size),
        }
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {"e": _integer(numbers.e), "kty": "RSA", "n": _integer(numbers.n)}
    if isinstance(key, ed25519.Ed25519PublicKey):
        return {"crv": "Ed25519", "kty": "OKP", "x": _base64url(key.public_bytes_raw())}
    if isinstance(key, mldsa.MLDSA65PublicKey):
        return {"alg": "ML-DSA-65", "kty": "AKP", "pub": _base64url(key.public_bytes_raw())}
    raise ValueError("no JWK is defined here for this kind of key")


def thumbprint(spki: bytes) -> str:
    """RFC 7638 with SHA-256, base64url without padding, 43 characters, of a DER
    SubjectPublicKeyInfo.

    Raises ValueError if the bytes are not a public key of an algorithm in the table.
    """
    canonical = json.dumps(public_members(spki), sort_keys=True, separators=(",", ":"))
    return _base64url(hashlib.sha256(canonical.encode()).digest())


def hs256_kid(context_digest: bytes, version: int) -> str:
    """Returns the id of an HS256 subkey, from its context and version. Unlike a thumbprint it
    reveals nothing about the key.
    """
    return _base64url(
        hashlib.sha256(HS256_DOMAIN + context_digest + struct.pack(">I", version)).digest()
    )
